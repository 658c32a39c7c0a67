//! stub
use std::borrow::Cow;
use std::str::FromStr;
/// t
#[derive(Clone, Debug)]
pub struct MimeType(pub String);
impl FromStr for MimeType {
    type Err = String;
    fn from_str(t: &str) -> Result<Self, String> {
        Ok(Self(t.into()))
    }
}
/// t
#[derive(Debug, Default)]
pub struct Types;
impl Types {
    /// t
    pub fn of(&self, _name: &[u8]) -> Cow<'static, str> {
        "text/plain".into()
    }
}
