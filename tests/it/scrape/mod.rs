//! What the metrics say, read as a monitor reads it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::thread;

use crate::common::{Carafe, connect, exchange, vanish};

/// Where a server's metrics are.
pub fn metrics_of(carafe: &Carafe) -> SocketAddr {
    let log = carafe.wait_for_log("metrics on ");
    let mut lines = log.lines();
    let address = lines.find_map(|line| line.strip_prefix("metrics on ")?.parse().ok());
    address.expect("an address")
}

/// Status and body.
pub fn get(metrics: SocketAddr, path: &str) -> (u16, String) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n");
    let reply = exchange(metrics, request.as_bytes()).expect("an answer");
    let reply = String::from_utf8(reply).expect("text");
    let (head, body) = reply.split_once("\r\n\r\n").expect("a head");
    let status = head.strip_prefix("HTTP/1.1 ").expect("a status line");
    (status[..3].parse().expect("a number"), body.to_owned())
}

/// Every sample of the page.
pub struct Page(HashMap<String, f64>);

impl Page {
    pub fn get(metrics: SocketAddr) -> Self {
        let (status, body) = get(metrics, "/metrics");
        assert_eq!(status, 200);
        assert!(body.ends_with("# EOF\n"), "{body}");
        let samples = body.lines().filter(|line| !line.starts_with('#'));
        let samples = samples.map(|line| {
            let (name, value) = line.rsplit_once(' ').expect("a sample");
            (name.to_owned(), value.parse().expect("a number"))
        });
        Self(samples.collect())
    }

    pub fn value(&self, name: &str) -> f64 {
        self.0[name]
    }

    /// Of all labels.
    pub fn sum(&self, name: &str) -> f64 {
        let of_it = |full: &str| full.split('{').next() == Some(name);
        let values = self.0.iter().filter(|(full, _)| of_it(full));
        values.map(|(_, value)| value).sum()
    }

    pub fn open(&self, state: &str) -> f64 {
        self.value(&format!("carafe_connections_open{{state=\"{state}\"}}"))
    }

    /// Accepted is what ended and what is open.
    pub fn assert_conserved(&self) {
        let ended = self.sum("carafe_connections_ended_total");
        let open = self.sum("carafe_connections_open");
        assert_eq!(
            self.value("carafe_connections_accepted_total"),
            ended + open
        );
    }
}

/// Looks at the page as often as can be while 600 clients come and go. `small` must be served.
pub fn watch_under_load(carafe: &Carafe, metrics: SocketAddr) {
    thread::scope(|scope| {
        let addr = carafe.addr();
        let load: Vec<_> = (0..3)
            .map(|client| {
                scope.spawn(move || {
                    for round in 0..200 {
                        match (client + round) % 3 {
                            0 => assert_eq!(exchange(addr, b"small\n").unwrap(), b"small bytes"),
                            1 => assert_eq!(exchange(addr, b"missing\n").unwrap(), b""),
                            _ => vanish(connect(addr)),
                        }
                    }
                })
            })
            .collect();
        while !load.iter().all(thread::ScopedJoinHandle::is_finished) {
            Page::get(metrics).assert_conserved();
        }
    });
}
