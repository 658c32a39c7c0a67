//! The metrics page: what the loop has counted, as Prometheus and its like read it. Rendered when
//! it is asked for, and kept nowhere.

use std::fmt;
use std::iter;
use std::time::SystemTime;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use crate::limits::HISTOGRAM_BOUNDS;
use crate::telemetry::Stage;
use crate::telemetry::phases::Phase;
use crate::telemetry::{Histogram, Reason, Stats};

/// What [`render`] writes.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Everything on the page, as it is at one moment.
#[derive(Clone, Debug, Default)]
pub struct MetricsSnapshot {
    /// The loop's counters.
    pub stats: Stats,
    /// Open connections, in the order of [`Stage::ALL`].
    pub stages: [u64; Stage::ALL.len()],
    /// Lines dropped of the log on stderr, and of the access log if there is one.
    pub lines_dropped: (u64, Option<u64>),
    /// When the process began to serve.
    pub started_at: Option<SystemTime>,
    /// Open descriptors, and how many may be open, as far as both are known.
    pub descriptors: (Option<u64>, Option<u64>),
    /// What there is to say of TLS, if it is spoken.
    pub tls: Option<TlsFigures>,
}

/// What the page says of TLS.
#[derive(Clone, Debug)]
pub struct TlsFigures {
    /// Each certificate's path, and when it ends, in seconds since 1970.
    pub ends: Vec<(String, u64)>,
    /// Handshakes that are over, by what they came to.
    pub handshakes: [(&'static str, u64); 3],
}

/// The page.
///
/// # Panics
/// Never: a `String` takes everything that is written.
#[must_use]
pub fn render(snapshot: MetricsSnapshot) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(snapshot));
    let mut page = String::new();
    text::encode(&mut page, &registry).expect("a String takes everything");
    page
}

impl Collector for MetricsSnapshot {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page(encoder);
        let stages = Stage::ALL.iter().map(|stage| stage.as_str());
        page.gauges(
            "carafe_connections_open",
            "Connections by what they do",
            "state",
            stages.zip(self.stages),
        )?;
        page.counters(
            "carafe_connections_accepted",
            "Connections accepted",
            None,
            iter::once((None, self.stats.accepted)),
        )?;
        let reasons = Reason::of_connections();
        page.counters(
            "carafe_connections_ended",
            "Connections ended, by the reason",
            None,
            reasons.map(|reason| {
                let label = ("reason", reason.of_connection());
                (Some(label), self.stats.ended(reason))
            }),
        )?;
        page.replies(&self.stats)?;
        page.counters(
            "carafe_body_sent",
            "Bytes of bodies that the kernel has accepted, of replies that are over",
            Some(&Unit::Bytes),
            iter::once((None, self.stats.bytes_sent)),
        )?;
        page.histogram(
            "carafe_request_duration",
            "From a request's arrival to the last byte of its reply",
            &self.stats.requests,
        )?;
        page.histogram(
            "carafe_loop_turn_duration",
            "From the end of the loop's wait to its next one",
            &self.stats.turns,
        )?;
        if let Some(phases) = &self.stats.phases {
            page.histograms(
                "carafe_reply_phase_duration",
                "What replies spent on each phase of their time",
                "phase",
                Phase::ALL.map(Phase::as_str).into_iter().zip(phases.iter()),
            )?;
        }
        if let Some(tls) = &self.tls {
            let kinds = tls.handshakes.iter();
            page.counters(
                "carafe_tls_handshakes",
                "TLS handshakes that are over, by what they came to",
                None,
                kinds.map(|&(kind, count)| (Some(("result", kind)), count)),
            )?;
            let ends = tls.ends.iter().map(|(path, at)| (path.as_str(), *at));
            page.gauges(
                "carafe_tls_certificate_end_timestamp_seconds",
                "When a certificate ends, in seconds since 1970",
                "certificate",
                ends,
            )?;
        }
        self.encode_process(&mut page)
    }
}

impl MetricsSnapshot {
    /// What concerns the process rather than its clients.
    fn encode_process(&self, page: &mut Page<'_>) -> fmt::Result {
        page.counters(
            "carafe_helper_panics",
            "Helpers that panicked while a client waited: a fault of this program",
            None,
            iter::once((None, self.stats.helper_panics)),
        )?;
        let (stderr, access) = self.lines_dropped;
        let logs = [("stderr", Some(stderr)), ("access", access)];
        let logs = logs.map(|(log, lines)| lines.map(|lines| (Some(("log", log)), lines)));
        page.counters(
            "carafe_log_lines_dropped",
            "Lines that a log did not take",
            None,
            logs.into_iter().flatten(),
        )?;
        let version = iter::once((env!("CARGO_PKG_VERSION"), 1));
        let since_1970 = |at: SystemTime| at.duration_since(SystemTime::UNIX_EPOCH);
        let started_at = self.started_at.map(since_1970);
        page.gauges("carafe_build_info", "What runs", "version", version)?;
        page.gauge(
            "process_start_time_seconds",
            "When the process began to serve, in seconds since 1970",
            started_at.and_then(|at| Some(at.ok()?.as_secs())),
        )?;
        let (open, limit) = self.descriptors;
        page.gauge("process_open_fds", "Open descriptors", open)?;
        page.gauge("process_max_fds", "Descriptors that may be open", limit)
    }
}

/// Writes metrics one after the other.
struct Page<'a>(DescriptorEncoder<'a>);

/// A label's name and value.
type Label = (&'static str, &'static str);

impl Page<'_> {
    fn replies(&mut self, stats: &Stats) -> fmt::Result {
        let outcomes = Reason::ALL.iter();
        self.counters(
            "carafe_reply_outcomes",
            "Replies that are over, by how they ended",
            None,
            outcomes.map(|&outcome| {
                let label = ("outcome", outcome.as_str());
                (Some(label), stats.replied(outcome))
            }),
        )?;
        let classes = ["1xx", "2xx", "3xx", "4xx", "5xx"].map(|class| Some(("class", class)));
        self.counters(
            "carafe_replies",
            "Replies that are over, by the class of their status",
            None,
            classes.into_iter().zip(stats.replies_by_class),
        )
    }

    fn counters(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        values: impl IntoIterator<Item = (Option<Label>, u64)>,
    ) -> fmt::Result {
        let mut metric = self
            .0
            .encode_descriptor(name, help, unit, MetricType::Counter)?;
        for (label, value) in values {
            match label {
                Some(label) => metric
                    .encode_family(&[label])?
                    .encode_counter::<NoLabelSet, _, u64>(&value, None)?,
                None => metric.encode_counter::<NoLabelSet, _, u64>(&value, None)?,
            }
        }
        Ok(())
    }

    fn gauges<'v>(
        &mut self,
        name: &str,
        help: &str,
        label: &'static str,
        values: impl IntoIterator<Item = (&'v str, u64)>,
    ) -> fmt::Result {
        let kind = MetricType::Gauge;
        let mut metric = self.0.encode_descriptor(name, help, None, kind)?;
        for (of, value) in values {
            metric.encode_family(&[(label, of)])?.encode_gauge(&value)?;
        }
        Ok(())
    }

    /// Nothing at all if the value isn't known.
    fn gauge(&mut self, name: &str, help: &str, value: Option<u64>) -> fmt::Result {
        let Some(value) = value else { return Ok(()) };
        let kind = MetricType::Gauge;
        let mut metric = self.0.encode_descriptor(name, help, None, kind)?;
        metric.encode_gauge(&value)
    }

    fn histogram(&mut self, name: &str, help: &str, times: &Histogram) -> fmt::Result {
        let kind = MetricType::Histogram;
        let unit = Some(&Unit::Seconds);
        let metric = self.0.encode_descriptor(name, help, unit, kind)?;
        encode(metric, times)
    }

    fn histograms<'v>(
        &mut self,
        name: &str,
        help: &str,
        label: &'static str,
        of: impl IntoIterator<Item = (&'v str, &'v Histogram)>,
    ) -> fmt::Result {
        let kind = MetricType::Histogram;
        let unit = Some(&Unit::Seconds);
        let mut metric = self.0.encode_descriptor(name, help, unit, kind)?;
        for (value, times) in of {
            encode(metric.encode_family(&[(label, value)])?, times)?;
        }
        Ok(())
    }
}

fn encode(mut metric: MetricEncoder<'_>, times: &Histogram) -> fmt::Result {
    let bounds = HISTOGRAM_BOUNDS.iter().map(|bound| bound.as_secs_f64());
    let bounds = bounds.chain(iter::once(f64::INFINITY));
    let buckets: Vec<_> = bounds.zip(times.counts().iter().copied()).collect();
    let (sum, count) = (times.total().as_secs_f64(), times.counts().iter().sum());
    metric.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_page_says_what_was_counted() {
        let mut snapshot = MetricsSnapshot {
            stages: [4, 3, 2, 1],
            lines_dropped: (5, Some(6)),
            started_at: Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1_793_000_000)),
            descriptors: (Some(7), Some(1024)),
            ..MetricsSnapshot::default()
        };
        let stats = &mut snapshot.stats;
        stats.count_accepted();
        stats.count_ended(Reason::PeerReset);
        stats.count_reply(200, Reason::Complete, 17, Duration::from_micros(50));
        stats.count_reply(404, Reason::Refused, 0, Duration::from_secs(100));
        stats.count_turn(Duration::from_micros(7));
        stats.helper_panics = 8;
        let page = render(snapshot);
        for line in [
            "# TYPE carafe_connections_open gauge",
            "carafe_connections_open{state=\"reading\"} 4",
            "carafe_connections_open{state=\"closing\"} 1",
            "carafe_connections_accepted_total 1",
            "carafe_connections_ended_total{reason=\"closed\"} 0",
            "carafe_connections_ended_total{reason=\"reset by peer\"} 1",
            "carafe_reply_outcomes_total{outcome=\"refused\"} 1",
            "carafe_replies_total{class=\"2xx\"} 1",
            "carafe_replies_total{class=\"4xx\"} 1",
            "carafe_body_sent_bytes_total 17",
            "# TYPE carafe_request_duration_seconds histogram",
            "carafe_request_duration_seconds_sum 100.00005",
            "carafe_request_duration_seconds_bucket{le=\"0.00001\"} 0",
            "carafe_request_duration_seconds_bucket{le=\"0.00005\"} 1",
            "carafe_request_duration_seconds_bucket{le=\"60.0\"} 1",
            "carafe_request_duration_seconds_bucket{le=\"+Inf\"} 2",
            "carafe_request_duration_seconds_count 2",
            "carafe_loop_turn_duration_seconds_bucket{le=\"0.00001\"} 1",
            "carafe_helper_panics_total 8",
            "carafe_log_lines_dropped_total{log=\"stderr\"} 5",
            "carafe_log_lines_dropped_total{log=\"access\"} 6",
            concat!(
                "carafe_build_info{version=\"",
                env!("CARGO_PKG_VERSION"),
                "\"} 1"
            ),
            "process_start_time_seconds 1793000000",
            "process_open_fds 7",
            "process_max_fds 1024",
        ] {
            assert!(page.lines().any(|one| one == line), "{line}\n{page}");
        }
        assert!(page.ends_with("# EOF\n"), "{page}");
    }

    #[test]
    fn what_is_not_known_is_not_said() {
        let page = render(MetricsSnapshot::default());
        for name in ["process_open_fds", "process_max_fds", "log=\"access\""] {
            assert!(!page.contains(name), "{page}");
        }
    }
}
