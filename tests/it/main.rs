//! The integration suites, as modules of one binary: linking one is what takes the time and the room.
//! Apart stand those that need a process of their own, and say why.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    missing_docs,
    reason = "a test says what failed by panicking"
)]

mod access_log;
mod admin_listener;
mod archives;
mod authority;
mod bad_input;
mod browser;
mod cache;
mod chaos;
mod clients;
mod cluster;
mod cold;
mod cold_disks;
mod command_line;
mod common;
mod conn;
mod corpus;
mod deaths;
mod docs;
mod fake;
mod files;
mod gated;
mod get;
mod get_endings;
mod get_http;
mod get_many;
mod get_recursive;
mod get_resume;
mod get_servers;
mod get_target;
mod get_tls;
mod guide;
mod http;
mod http_busy;
mod http_clients;
mod http_files;
mod http_life;
mod http_schedules;
mod http_split;
mod intruder;
mod kept_alive;
mod lab;
mod layers;
mod liars;
mod limits;
mod lists;
mod log;
mod metrics;
mod mirrors;
mod monitors;
mod notes;
mod one_client;
mod origin;
mod peers;
mod plots;
mod pour;
mod protocol;
mod proxied;
mod pty;
mod reactor;
mod readme;
mod replicas;
mod restarts;
mod say;
mod schedules;
mod scrape;
mod shells;
mod shutdown;
mod silent;
mod slices;
mod soak;
mod soak_find;
mod soak_http;
mod soak_parts;
mod soak_runs;
mod soak_tls;
mod soak_versus;
mod soaking;
mod strangers;
mod systemd;
mod talk;
mod terminal;
mod thank;
mod timing;
mod tls;
mod tls_schedules;
mod trace;
mod trusted_proxies;
mod tutorial;
mod units;
mod unix_sockets;
mod web;
mod workers;

/// What the fuzz targets check, for the corpus.
#[path = "../../fuzz/src/lib.rs"]
mod targets;
