"""make bench-peers: Linkbeat beside InfluxDB, VictoriaMetrics and Prometheus, on one machine in one run."""
