//! A histogram in JSON: HdrHistogram's V2, compressed and in base64, as its other implementations write it, too.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::serialization::{Serializer as _, V2DeflateSerializer};
use hdrhistogram::{Counter, Histogram};
use serde::{Deserialize as _, Deserializer, Serializer, de, ser};

/// Significant digits of a histogram: figures are right to a tenth of a percent.
pub const DIGITS: u8 = 3;

/// Writes it.
pub fn serialize<T: Counter, S: Serializer>(
    histogram: &Histogram<T>,
    to: S,
) -> Result<S::Ok, S::Error> {
    let mut bytes = Vec::new();
    V2DeflateSerializer::new()
        .serialize(histogram, &mut bytes)
        .map_err(ser::Error::custom)?;
    to.serialize_str(&STANDARD.encode(bytes))
}

/// Reads it.
pub fn deserialize<'de, T: Counter, D: Deserializer<'de>>(
    from: D,
) -> Result<Histogram<T>, D::Error> {
    let text = String::deserialize(from)?;
    let bytes = STANDARD.decode(text).map_err(de::Error::custom)?;
    let mut histogram: Histogram<T> = hdrhistogram::serialization::Deserializer::new()
        .deserialize(&mut &bytes[..])
        .map_err(de::Error::custom)?;
    // As those that were recorded: another one is added to it.
    histogram.auto(true);
    Ok(histogram)
}
