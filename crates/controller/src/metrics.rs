//! Owns the metrics of the controller. The registry is passed in; label sets are bounded.

use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

/// The controller's metrics. Names with the `controller_runtime_` and `workqueue_` prefix are those that dashboards exist for.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Passes by kind and result (`success`, `error`, `requeue`).
    pub reconcile_total: IntCounterVec,
    /// Passes that failed, by kind.
    pub reconcile_errors_total: IntCounterVec,
    /// Seconds a pass took, by kind.
    pub reconcile_seconds: HistogramVec,
    /// Keys that wait.
    pub queue_depth: IntGauge,
    /// Keys that were added.
    pub queue_adds: prometheus::IntCounter,
    /// Keys that were added again after a failure.
    pub queue_retries: prometheus::IntCounter,
    /// Calls to the engine.
    pub docker_calls: IntCounterVec,
    /// Differences that a relist found.
    pub mirror_differences: IntGauge,
    /// Whether the engine can be reached.
    pub engine_up: IntGauge,
    /// Severity of a service from 1 to 6.
    pub availability: IntGaugeVec,
    /// Whether a service may be used.
    pub usable: IntGaugeVec,
    /// Whether a service is locked, by mode.
    pub lock_held: IntGaugeVec,
    /// Whether a dependency is usable, by edge.
    pub dependency_up: IntGaugeVec,
    /// Severity of a mini container from 1 to 6.
    pub parent_availability: IntGaugeVec,
    /// Reloads that were begun because of a dependency, by verb.
    pub reloads: IntCounterVec,
    /// Runs of jobs that ended, by result (`succeeded`, `failed`, `skipped`).
    pub job_runs: IntCounterVec,
    /// Steps taken, by verb and result.
    pub steps: IntCounterVec,
    /// Drift found, by kind and field.
    pub drift: IntCounterVec,
    /// Whether a namespace is frozen at its last good manifests.
    pub frozen: IntGaugeVec,
    /// Whether an object is suspended.
    pub suspended: IntGaugeVec,
    /// Things stamped as ours that nothing wants.
    pub orphans: IntGauge,
    /// Whether a source's removals are held, by source.
    pub prune_held: IntGaugeVec,
}

impl Metrics {
    /// Makes and registers all of them.
    ///
    /// # Errors
    /// When the registry already has one of the names.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str, labels: &[&str]| -> Result<IntCounterVec, prometheus::Error> {
            let metric = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let gauges = |name: &str, help: &str, labels: &[&str]| -> Result<IntGaugeVec, prometheus::Error> {
            let metric = IntGaugeVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let gauge = |name: &str, help: &str| -> Result<IntGauge, prometheus::Error> {
            let metric = IntGauge::new(name, help)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let single = |name: &str, help: &str| -> Result<prometheus::IntCounter, prometheus::Error> {
            let metric = prometheus::IntCounter::new(name, help)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let buckets = vec![0.000_1, 0.000_5, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0];
        let seconds = HistogramVec::new(
            HistogramOpts::new("controller_runtime_reconcile_time_seconds", "Seconds a pass took").buckets(buckets),
            &["controller"],
        )?;
        registry.register(Box::new(seconds.clone()))?;
        Ok(Self {
            reconcile_total: counter("controller_runtime_reconcile_total", "Passes by result", &["controller", "result"])?,
            reconcile_errors_total: counter("controller_runtime_reconcile_errors_total", "Passes that failed", &["controller"])?,
            reconcile_seconds: seconds,
            queue_depth: gauge("workqueue_depth", "Keys that wait for a pass")?,
            queue_adds: single("workqueue_adds_total", "Keys added to the queue")?,
            queue_retries: single("workqueue_retries_total", "Keys added again after a failure")?,
            docker_calls: counter(
                "quaymaster_docker_calls_total",
                "Calls to the engine; code 0 = no answer",
                &["method", "route", "code"],
            )?,
            mirror_differences: gauge("quaymaster_mirror_difference_total", "Differences that a relist found")?,
            engine_up: gauge("quaymaster_engine_up", "Whether the engine can be reached")?,
            availability: gauges(
                "quaymaster_service_availability",
                "Availability from 1 (best) to 6; none for a disabled service",
                &["namespace", "service"],
            )?,
            usable: gauges("quaymaster_service_usable", "Whether a service may be used now", &["namespace", "service"])?,
            lock_held: gauges(
                "quaymaster_service_lock_held",
                "Whether a service is used or changed under a lock now",
                &["namespace", "service", "mode"],
            )?,
            dependency_up: gauges("quaymaster_dependency_up", "Whether a dependency is usable", &["namespace", "from", "to"])?,
            parent_availability: gauges(
                "quaymaster_mini_container_availability",
                "Availability of the children of a mini container together, from 1 (best) to 6",
                &["namespace", "name"],
            )?,
            reloads: counter(
                "quaymaster_reloads_total",
                "Reloads begun because a dependency returned or changed, by verb",
                &["namespace", "service", "verb"],
            )?,
            job_runs: counter("quaymaster_job_runs_total", "Runs of jobs that ended, by result", &["namespace", "job", "result"])?,
            steps: counter("quaymaster_steps_total", "Steps taken, by verb and result", &["verb", "result"])?,
            drift: counter("quaymaster_drift_total", "Differences made by others", &["kind", "field"])?,
            frozen: gauges("quaymaster_source_frozen", "Whether a namespace stays at its last good manifests", &["namespace"])?,
            suspended: gauges("quaymaster_suspended", "Whether an object is suspended", &["kind", "namespace", "name"])?,
            orphans: gauge("quaymaster_orphans", "Things stamped as ours that nothing wants")?,
            prune_held: gauges("quaymaster_prune_held", "Whether a source's removals wait for approval", &["source"])?,
        })
    }
}
