"""Who is told about progress: gauges for Prometheus, and the tracked run where there is one."""
