//! Request methods.

/// Methods (RFC 9110, section 9), as far as they are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// GET.
    Get,
    /// HEAD.
    Head,
    /// OPTIONS.
    Options,
    /// CONNECT, whose target has a form of its own.
    Connect,
    /// Another one that is known and not served here.
    Other,
    /// A token that names no method known here.
    Unknown,
}

/// Methods of RFC 9110, section 9, and RFC 5789.
pub(super) const METHODS: [(&[u8], Method); 9] = [
    (b"GET", Method::Get),
    (b"HEAD", Method::Head),
    (b"OPTIONS", Method::Options),
    (b"CONNECT", Method::Connect),
    (b"POST", Method::Other),
    (b"PUT", Method::Other),
    (b"DELETE", Method::Other),
    (b"TRACE", Method::Other),
    (b"PATCH", Method::Other),
];
