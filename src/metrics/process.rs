//! What the system says of this process, under the names that every Prometheus client gives it.

/// In Prometheus's text format.
#[cfg(target_os = "linux")]
#[must_use]
pub fn process_metrics() -> String {
    linux::read().map_or_else(
        |error| {
            tracing::debug!(%error, "the system does not tell about this process");
            String::new()
        },
        |registry| super::text(&registry),
    )
}

/// Nothing: the system has no `/proc`.
#[cfg(not(target_os = "linux"))]
#[must_use]
pub const fn process_metrics() -> String {
    String::new()
}

#[cfg(target_os = "linux")]
mod linux {
    use procfs::{ProcResult, WithCurrentSystemInfo, process::Process};
    use prometheus_client::{
        metrics::{counter::ConstCounter, gauge::ConstGauge},
        registry::Registry,
    };

    pub fn read() -> ProcResult<Registry> {
        let process = Process::myself()?;
        let stat = process.stat()?;
        let in_seconds = |ticks: u64| seconds(ticks, procfs::ticks_per_second());
        let started_at = in_seconds(stat.starttime) + seconds(procfs::boot_time_secs()?, 1);
        let cpu = in_seconds(stat.utime + stat.stime);
        let mut registry = Registry::default();
        registry.register("process_cpu_seconds", "Time of processors, of the program and of the system for it", ConstCounter::new(cpu));
        registry.register("process_resident_memory_bytes", "Memory in use", ConstGauge::new(stat.rss_bytes().get()));
        registry.register("process_open_fds", "Open files and connections", ConstGauge::new(process.fd_count()?));
        registry.register("process_start_time_seconds", "When it began, in Unix time", ConstGauge::new(started_at));
        Ok(registry)
    }

    /// Exact for some hundred million years.
    #[allow(clippy::cast_precision_loss)]
    fn seconds(ticks: u64, per_second: u64) -> f64 {
        ticks as f64 / per_second as f64
    }
}
