//! HTTP/1.1 as an origin server speaks it: what a request says, and what an answer's bytes are; and
//! as a client reads an answer (`response`).
//! Nothing here knows sockets, waiting or the root; bytes and facts go in, bytes and decisions
//! come out.

pub mod accept;
pub mod coding;
pub mod custom_fields;
pub mod date;
pub mod disposition;
pub mod entity_tag;
pub mod fields;
pub mod head;
pub mod listing;
pub mod method;
pub mod mime;
pub mod page;
pub mod range;
pub mod request;
pub mod response;
pub mod target;
pub mod validators;
