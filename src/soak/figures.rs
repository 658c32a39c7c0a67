//! Figures, and how sure they are. Times are in microseconds.

use serde::{Deserialize, Deserializer, Serialize};

/// A figure, and where it is with 99 % certainty.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// What was measured.
    pub value: f64,
    /// The lower end, which may be infinite as well.
    #[serde(deserialize_with = "or_below_all")]
    pub low: f64,
    /// The upper end, which may be infinite: JSON's null.
    #[serde(deserialize_with = "or_infinite")]
    pub high: f64,
}

impl Interval {
    /// A fact of the run, such as a count or a maximum.
    pub fn exact(value: f64) -> Self {
        Self {
            value,
            low: value,
            high: value,
        }
    }

    /// As sure as another figure of the same, however that was reckoned.
    #[must_use]
    pub fn around(self, value: f64) -> Self {
        Self {
            value,
            low: value - (self.value - self.low),
            high: value + (self.high - self.value),
        }
    }

    /// Where the truth is as likely above as below: of a few slow requests the quantile is mostly below the
    /// real one, and the interval's upper end is further away. Of ends without a geometric mean, the figure.
    pub fn middle(self) -> f64 {
        let is_between = self.low > 0.0 && self.high.is_finite();
        if is_between {
            (self.low * self.high).sqrt()
        } else {
            self.value
        }
    }

    /// The same in another unit.
    #[must_use]
    pub fn scaled(self, factor: f64) -> Self {
        Self {
            value: self.value * factor,
            low: self.low * factor,
            high: self.high * factor,
        }
    }
}

fn or_infinite<'de, D: Deserializer<'de>>(number: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(number)?.unwrap_or(f64::INFINITY))
}

fn or_below_all<'de, D: Deserializer<'de>>(number: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(number)?.unwrap_or(f64::NEG_INFINITY))
}

/// How long things took.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Latency {
    /// From the call of connect to the end of TCP's handshake.
    pub connect: Percentiles,
    /// From there to the end of TLS's handshake; none without TLS.
    #[serde(default)]
    pub handshake: Percentiles,
    /// From sending the request to the first byte of the answer.
    pub first_byte: Percentiles,
    /// From the start of the connection (or of the request, on one kept alive) to the last byte.
    pub total: Percentiles,
    /// As `total`, but counted as a client would that doesn't wait for the server: from the moment
    /// a request was due (open model), or with the requests that a waiting client did not send
    /// filled in (closed model).
    pub corrected: Percentiles,
    /// The histogram of `corrected`: from, to (microseconds) and count. Empty ones are left out.
    pub histogram: Vec<(u64, u64, u64)>,
    /// The longest time in which clients waited and nobody received a byte.
    pub longest_silence_us: u64,
    /// When it began.
    pub longest_silence_at_us: u64,
}

/// A distribution, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Percentiles {
    /// How many values.
    pub count: u64,
    /// The median.
    pub p50: u64,
    /// Nine in ten are below.
    pub p90: u64,
    /// 99 in 100 are below.
    pub p99: u64,
    /// 999 in 1,000 are below.
    pub p999: u64,
    /// The largest.
    pub max: u64,
    /// Where each of the four quantiles is, with 99 % certainty: low and high; so few may tell no high.
    pub intervals: Option<[(u64, Option<u64>); 4]>,
}

/// A trend, per minute.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Slope {
    /// Too few samples, or over too short a time, to say anything.
    #[default]
    NotEnoughData,
    /// The fitted slope at the end of the run, and its 99 % confidence interval.
    Fitted {
        /// The fitted slope.
        per_minute: f64,
        /// The interval's lower end.
        low: f64,
        /// The interval's upper end.
        high: f64,
        /// The least slope that would have been found, 95 times in 100: with the interval above zero.
        finds: f64,
    },
}
