// Generated from the OpenAPI document by `make docs`; a test compares the two.
//
// The schemas; and of each route, by method, what a request gives (`asked`) and what it is answered (`answer`).
declare namespace Api {
  interface AccountRule {
    "scope"?: Scope;
    "for_seconds"?: number;
    "keep_seconds"?: number;
    "severity"?: "info" | "warning" | "critical";
    "channels"?: Array<string> | null;
    "repeat_seconds"?: number | null;
    "enabled"?: boolean;
    "note"?: string;
    "runbook"?: string;
    "kind": "account";
    "resets"?: number;
  }
  interface Agent {
    "server_id": string;
    "hostname": string;
    "status": "online" | "offline";
    "paused": boolean;
    "agent_version": string | null;
    "interval_seconds": number | null;
    "last_seen": string;
    "received_at": string;
    "lateness_seconds": number;
    "clock_skew_seconds": number | null;
    "duplicates": number;
    "conflicts": number;
    "queued": number | null;
    "oldest_seconds": number | null;
    "spool": "disk" | "memory" | null;
    "spool_bytes": number | null;
    "dropped": number | null;
    "rejected": number | null;
    "truncated": boolean | null;
    "display_name": string | null;
    "tags": Array<string>;
    "config": AgentConfig | null;
  }
  interface AgentConfig {
    "interval_seconds"?: number | null;
    "include_interfaces"?: Array<string> | null;
    "exclude_interfaces"?: Array<string> | null;
    "paused"?: boolean | null;
  }
  interface AgentPage {
    "agents": Array<Agent>;
    "next": string | null;
  }
  interface AgentRule {
    "scope"?: Scope;
    "for_seconds"?: number;
    "keep_seconds"?: number;
    "severity"?: "info" | "warning" | "critical";
    "channels"?: Array<string> | null;
    "repeat_seconds"?: number | null;
    "enabled"?: boolean;
    "note"?: string;
    "runbook"?: string;
    "kind": "agent";
  }
  interface Alert {
    "rule": string;
    "kind": string | null;
    "severity": "info" | "warning" | "critical" | null;
    "server_id": string;
    "subject": string;
    "state": "pending" | "firing";
    "since": string | null;
    "fired_at": string | null;
    "cleared_at": string | null;
    "value": number | null;
    "peak": number | null;
    "reason": string | null;
    "held": boolean;
    "episode": string | null;
    "told_at": string | null;
    "is_muted": boolean;
    "acknowledged_at": string | null;
    "acknowledged_by": string | null;
  }
  interface AlertChannel {
    "id": string;
    "kind": "webhook" | "email" | "alertmanager" | "ping" | "apprise";
    "managed_by": "api" | "file";
    "min_severity": "info" | "warning" | "critical";
    "sends_resolved": boolean;
    "sends_late": boolean;
    "digest_seconds": number;
    "time_zone": string;
    "enabled": boolean;
    "url"?: string | null;
    "urls"?: Array<string> | null;
    "has_secret"?: boolean | null;
    "host"?: string | null;
    "port"?: number | null;
    "security"?: "starttls" | "tls" | "none" | null;
    "sender"?: string | null;
    "recipients"?: Array<string> | null;
    "username"?: string | null;
    "has_password"?: boolean | null;
  }
  interface AlertChannels {
    "channels": Array<AlertChannel>;
    "next": string | null;
  }
  interface AlertEvent {
    "id": number;
    "episode": string;
    "sequence": number;
    "rule": string;
    "server_id": string;
    "subject": string;
    "severity": "info" | "warning" | "critical" | null;
    "from": string;
    "to": string;
    "at": string;
    "recorded_at": string;
    "since": string;
    "cleared_at": string | null;
    "value": number | null;
    "peak": number | null;
    "reason": string | null;
    "is_late": boolean;
  }
  interface AlertEvents {
    "events": Array<AlertEvent>;
    "next": string | null;
  }
  interface AlertMessage {
    "id": string;
    "channel": string;
    "kind": string;
    "state": "waiting" | "retrying" | "delivered" | "dead";
    "created_at": string;
    "next_attempt_at": string;
    "attempts": number;
    "delivered_at": string | null;
    "dead_at": string | null;
    "status": number | null;
    "error": string | null;
    "alerts": number;
  }
  interface AlertMessages {
    "messages": Array<AlertMessage>;
    "next": string | null;
  }
  interface AlertMute {
    "id": string;
    "matcher": Matcher;
    "starts_at": string | null;
    "ends_at": string | null;
    "weekly": Weekly | null;
    "time_zone": string;
    "comment": string | null;
    "created_by": string | null;
    "created_at": string;
    "is_on": boolean;
  }
  interface AlertMutes {
    "mutes": Array<AlertMute>;
    "next": string | null;
  }
  interface AlertRule {
    "id": string;
    "kind": "silent" | "link" | "rate" | "quota" | "filesystem" | "errors" | "account" | "agent";
    "managed_by": "api" | "file" | "preset";
    "revision": number;
    "scope": Scope;
    "for_seconds": number;
    "keep_seconds": number;
    "severity": "info" | "warning" | "critical";
    "channels": Array<string> | null;
    "repeat_seconds": number | null;
    "enabled": boolean;
    "note": string;
    "runbook": string;
    "after_seconds"?: number | null;
    "down_seconds"?: number | null;
    "flaps"?: number | null;
    "window_seconds"?: number | null;
    "direction"?: "rx" | "tx" | "sum" | "max" | null;
    "above_bps"?: number | null;
    "below_bps"?: number | null;
    "above_percent"?: number | null;
    "below_percent"?: number | null;
    "clear_percent"?: number | null;
    "percent"?: Array<number> | number | null;
    "forecast"?: boolean | null;
    "below_bytes"?: number | null;
    "full_within_hours"?: number | null;
    "unreachable_seconds"?: number | null;
    "count"?: number | null;
    "packets"?: number | null;
    "resets"?: number | null;
  }
  interface AlertRules {
    "rules": Array<AlertRule>;
    "next": string | null;
  }
  interface AlertmanagerChannel {
    "min_severity"?: "info" | "warning" | "critical";
    "sends_resolved"?: boolean;
    "sends_late"?: boolean;
    "digest_seconds"?: number;
    "time_zone"?: string;
    "enabled"?: boolean;
    "kind": "alertmanager";
    "urls": Array<string>;
  }
  interface Alerts {
    "alerts": Array<Alert>;
    "next": string | null;
  }
  interface Alive {
    "status"?: "ok";
  }
  interface Amount {
    "rx_bytes": number;
    "tx_bytes": number;
    "total_bytes": number;
  }
  interface AppriseChannel {
    "min_severity"?: "info" | "warning" | "critical";
    "sends_resolved"?: boolean;
    "sends_late"?: boolean;
    "digest_seconds"?: number;
    "time_zone"?: string;
    "enabled"?: boolean;
    "kind": "apprise";
    "urls": Array<string>;
  }
  interface AuditEntry {
    "entry": number;
    "at": string;
    "actor_kind": "token" | "key" | "session" | "proxy" | "command" | "file" | "database";
    "actor": string;
    "token_id": string | null;
    "address": string | null;
    "action": string;
    "server_id": string | null;
    "subject": string;
    "before": Record<string, unknown> | null;
    "after": Record<string, unknown> | null;
  }
  interface AuditPage {
    "entries": Array<AuditEntry>;
    "next": string | null;
  }
  interface Backtest {
    "since": string;
    "until": string;
    "basis": "rows" | "minutes";
    "is_truncated": boolean;
    "episodes": Array<PastEpisode>;
  }
  interface BatchAnswer {
    "stored": number;
    "duplicate": number;
    "conflict": number;
    "rejected": Array<Rejected>;
    "server_time": string;
    "epoch": string;
    "status"?: string;
  }
  interface ChannelTest {
    "is_delivered": boolean;
    "status": number | null;
    "error": string | null;
  }
  interface Columns {
    "server_id": string;
    "interface": string;
    "rx_bps": Array<number | null>;
    "tx_bps": Array<number | null>;
    "bucket_seconds"?: number;
    "first"?: string;
  }
  interface Created {
    "id": string;
    "kind": "server" | "fleet" | "read" | "admin" | "enrolment";
    "token": string;
    "server_id": string | null;
    "expires_at": string | null;
  }
  interface Day {
    "rx_bytes": number;
    "tx_bytes": number;
    "total_bytes": number;
    "day": string;
    "samples": number;
  }
  interface Definitions {
    "default_interval_seconds": number;
    "late_after_intervals": number;
    "offline_after_intervals": number;
    "clock_skew_seconds": number;
    "filesystem_warning_percent": number;
    "filesystem_full_percent": number;
    "periods": Array<PeriodDefinition>;
    "bucket_widths_seconds": Array<number>;
  }
  interface Delivery {
    "queued"?: number | null;
    "oldest_seconds"?: number | null;
    "spool_bytes"?: number | null;
    "dropped"?: number | null;
    "rejected"?: number | null;
    "spool"?: "disk" | "memory" | null;
  }
  interface DeviceEvent {
    "timestamp": string;
    "interface": string;
    "event": "renamed" | "hardware_changed" | "duplicate_address";
    "detail": Record<string, unknown>;
  }
  interface EmailChannel {
    "min_severity"?: "info" | "warning" | "critical";
    "sends_resolved"?: boolean;
    "sends_late"?: boolean;
    "digest_seconds"?: number;
    "time_zone"?: string;
    "enabled"?: boolean;
    "kind": "email";
    "host": string;
    "recipients": Array<string>;
    "sender": string;
    "port"?: number | null;
    "security"?: "starttls" | "tls" | "none";
    "username"?: string;
    "password"?: string | null;
  }
  interface Enrolling {
    "server_id": string;
    "hostname": string;
    "server_guid"?: string | null;
  }
  interface ErrorsRule {
    "scope"?: Scope;
    "for_seconds"?: number;
    "keep_seconds"?: number;
    "severity"?: "info" | "warning" | "critical";
    "channels"?: Array<string> | null;
    "repeat_seconds"?: number | null;
    "enabled"?: boolean;
    "note"?: string;
    "runbook"?: string;
    "kind": "errors";
    "count"?: number;
    "percent"?: number;
    "packets"?: number;
    "window_seconds"?: number;
  }
  interface FieldError {
    "path": string;
    "reason": string;
  }
  interface Filesystem {
    "mount_point": string;
    "device"?: string;
    "fs_type"?: string;
    "total_bytes"?: number;
    "used_bytes"?: number;
    "available_bytes"?: number | null;
    "percent"?: number | null;
    "state"?: string | null;
  }
  interface FilesystemPoint {
    "timestamp": string;
    "min": number | null;
    "max": number | null;
    "avg": number | null;
    "used_bytes": number | null;
    "total_bytes": number | null;
  }
  interface FilesystemRule {
    "scope"?: Scope;
    "for_seconds"?: number;
    "keep_seconds"?: number;
    "severity"?: "info" | "warning" | "critical";
    "channels"?: Array<string> | null;
    "repeat_seconds"?: number | null;
    "enabled"?: boolean;
    "note"?: string;
    "runbook"?: string;
    "kind": "filesystem";
    "above_percent"?: number | null;
    "below_bytes"?: number | null;
    "full_within_hours"?: number | null;
    "unreachable_seconds"?: number;
  }
  interface FilesystemSparkline {
    "server_id": string;
    "metric": "filesystem";
    "unit": "percent";
    "mount_point": string;
    "period": string;
    "bucket_seconds": number;
    "data": Array<FilesystemPoint>;
  }
  interface Fleet {
    "at": string;
    "servers": Array<FleetServer>;
    "next"?: string | null;
    "is_whole"?: boolean;
  }
  interface FleetColumns {
    "period": string;
    "bucket_seconds": number;
    "first": string;
    "series": Array<Columns>;
    "sums"?: Array<Sum>;
  }
  interface FleetInterface {
    "name": string;
    "is_up": boolean;
    "kind": string | null;
    "rx_bps": number | null;
    "tx_bps": number | null;
  }
  interface FleetPeaks {
    "period": string;
    "peaks": Array<Peak>;
    "sums"?: Array<Sum>;
  }
  interface FleetSeries {
    "server_id": string;
    "interface": string;
    "data": Array<Point>;
    "bucket_seconds"?: number;
  }
  interface FleetServer {
    "id": string;
    "hostname": string;
    "status": "online" | "offline";
    "paused": boolean;
    "received_at": string;
    "interval_seconds": number;
    "primary_interface": string | null;
    "interface_count": number;
    "interfaces_down": number;
    "interfaces": Array<FleetInterface>;
    "display_name": string | null;
    "tags": Array<string>;
  }
  interface FleetSparkline {
    "metric": "network";
    "period": string;
    "bucket_seconds": number;
    "series": Array<FleetSeries>;
    "next": string | null;
    "sums"?: Array<Sum>;
  }
  interface FleetUsage {
    "time_zone": string;
    "billing_day": number;
    "since": string;
    "until": string;
    "servers": Array<ServerUsage>;
    "next": string | null;
    "sums"?: Array<Sum>;
  }
  interface GaugePoint {
    "timestamp": string;
    "min": number | null;
    "max": number | null;
    "avg": number | null;
  }
  interface GaugeSparkline {
    "server_id": string;
    "metric": "cpu" | "memory" | "disk" | "load" | "temperature";
    "unit": "percent" | "processes" | "celsius";
    "period": string;
    "bucket_seconds": number;
    "data": Array<GaugePoint>;
  }
  interface GroupedSparkline {
    "server_id": string;
    "metric": "network";
    "period": string;
    "bucket_seconds": number;
    "series": Array<Series>;
    "sums"?: Array<Sum>;
  }
  interface Heartbeat {
    "server_id": string;
    "hostname": string;
    "server_guid"?: string | null;
    "timestamp"?: string | null;
    "status"?: string | null;
    "boot_id"?: string | null;
    "agent_version"?: string | null;
    "interval_seconds"?: number | null;
    "primary_interface"?: string | null;
    "os_info"?: Record<string, unknown> | null;
    "metrics"?: HostMetrics | null;
    "network_interfaces"?: Array<NetworkInterface> | null;
    "filesystems"?: Array<Filesystem> | null;
    "delivery"?: Delivery | null;
    "truncated"?: boolean | null;
    "tags"?: Array<string> | null;
  }
  interface HeartbeatAnswer {
    "server_registered": boolean;
    "duplicate": boolean;
    "server_time": string;
    "epoch": string;
    "status"?: string;
    "pending_commands"?: Array<string>;
    "results_acknowledged"?: Array<string>;
    "config"?: AgentConfig;
  }
  interface HostMetrics {
    "cpu_percent"?: number | null;
    "memory_percent"?: number | null;
    "memory_total_mb"?: number | null;
    "memory_used_mb"?: number | null;
    "disk_percent"?: number | null;
    "disk_total_gb"?: number | null;
    "disk_used_gb"?: number | null;
    "network_rx_bytes"?: number | null;
    "network_tx_bytes"?: number | null;
    "load_1m"?: number | null;
    "load_5m"?: number | null;
    "load_15m"?: number | null;
    "uptime_seconds"?: number | null;
    "temperature_celsius"?: number | null;
  }
  interface Interface {
    "name": string;
    "time": string;
    "first_seen": string;
    "is_current": boolean;
    "is_up": boolean;
    "operstate": string | null;
    "kind": string | null;
    "stacked_on": Array<string> | null;
    "is_lowest": boolean;
    "is_folded": boolean;
    "is_primary": boolean;
    "speed_mbps": number | null;
    "rx_bps": number | null;
    "tx_bps": number | null;
    "delta_kind": string;
    "elapsed_seconds": number | null;
    "rx_bytes": number;
    "tx_bytes": number;
    "rx_packets": number;
    "tx_packets": number;
    "rx_errors": number | null;
    "tx_errors": number | null;
    "rx_dropped": number | null;
    "tx_dropped": number | null;
    "folded_into": string | null;
    "os_name": string;
    "carrier_changes": number | null;
    "display_name": string | null;
  }
  interface InterfaceLabels {
    "server_id": string;
    "interface": string;
    "display_name": string | null;
  }
  interface InterfaceLink {
    "id": number;
    "interface": string;
    "into": string;
    "since": string | null;
    "until": string | null;
    "sum": boolean;
    "created_at": string;
  }
  interface InterfaceLinks {
    "server_id": string;
    "links": Array<InterfaceLink>;
  }
  interface InterfacePage {
    "server_id": string;
    "interfaces": Array<Interface>;
    "next": string | null;
  }
  interface InterfaceState {
    "name": string;
    "rx_bytes": number;
    "tx_bytes": number;
    "rx_packets": number;
    "tx_packets": number;
    "is_up": boolean;
    "rx_errors"?: number | null;
    "tx_errors"?: number | null;
    "rx_dropped"?: number | null;
    "tx_dropped"?: number | null;
    "kind"?: string | null;
    "stacked_on"?: Array<string> | null;
    "speed_mbps"?: number | null;
    "operstate"?: string | null;
    "ifindex"?: number | null;
    "permanent_address"?: string | null;
    "bus_path"?: string | null;
    "alias"?: string | null;
    "carrier_changes"?: number | null;
    "rx_bps": number | null;
    "tx_bps": number | null;
    "delta_kind": string;
    "elapsed_seconds": number | null;
    "is_lowest": boolean;
    "is_folded": boolean;
    "folded_into": string | null;
    "os_name": string;
    "display_name": string | null;
  }
  interface InterfaceStats {
    "server_id": string;
    "interface": Interface;
    "changed_at": string | null;
    "time_zone": string;
    "today": Totals | null;
    "month": Totals | null;
    "sums"?: Array<Sum>;
  }
  interface InterfaceUsage {
    "rx_bytes": number;
    "tx_bytes": number;
    "total_bytes": number;
    "interface": string;
    "is_lowest": boolean;
  }
  interface Job {
    "job": string;
    "state": string;
    "every_seconds": number;
    "last_success": string | null;
    "last_failure": string | null;
    "consecutive_failures": number;
    "last_error": string | null;
  }
  interface Labels {
    "display_name": string | null;
    "tags": Array<string>;
    "agent_tags": Array<string>;
    "all_tags": Array<string>;
  }
  interface LatestPage {
    "data": Array<LatestTraffic>;
    "next": string | null;
  }
  interface LatestTraffic {
    "server_id": string;
    "interface": string;
    "time": string;
    "is_up": boolean;
    "is_lowest": boolean;
    "is_folded": boolean;
    "speed_mbps": number | null;
    "rx_bps": number | null;
    "tx_bps": number | null;
    "delta_kind": string;
    "elapsed_seconds": number | null;
  }
  interface LinkPreview {
    "before": Array<LinkTotal>;
    "after": Array<LinkTotal>;
    "overlap": Overlap | null;
  }
  interface LinkRule {
    "scope"?: Scope;
    "for_seconds"?: number;
    "keep_seconds"?: number;
    "severity"?: "info" | "warning" | "critical";
    "channels"?: Array<string> | null;
    "repeat_seconds"?: number | null;
    "enabled"?: boolean;
    "note"?: string;
    "runbook"?: string;
    "kind": "link";
    "down_seconds"?: number;
    "flaps"?: number;
    "window_seconds"?: number;
  }
  interface LinkTotal {
    "interface": string;
    "rx_bytes": number;
    "tx_bytes": number;
    "samples": number;
  }
  interface Matcher {
    "servers"?: Array<string> | null;
    "rules"?: Array<string> | null;
    "tags"?: Array<string> | null;
  }
  interface Month {
    "rx_bytes": number;
    "tx_bytes": number;
    "total_bytes": number;
    "since": string;
    "until": string;
    "samples": number;
    "expected": Amount | null;
    "percentile": Percentile | null;
  }
  interface MountedFilesystem {
    "mount_point": string;
    "device"?: string;
    "fs_type"?: string;
    "total_bytes"?: number;
    "used_bytes"?: number;
    "available_bytes"?: number | null;
    "percent"?: number | null;
    "state"?: string | null;
  }
  interface Mute {
    "matcher"?: Matcher;
    "starts_at"?: string | null;
    "ends_at"?: string | null;
    "weekly"?: Weekly | null;
    "time_zone"?: string;
    "comment"?: string;
  }
  interface NameSpan {
    "interface": string;
    "os_name": string;
    "since": string;
    "until": string | null;
  }
  interface Names {
    "server_id": string;
    "names": Array<NameSpan>;
    "events": Array<DeviceEvent>;
    "suggestions": Array<Suggestion>;
  }
  interface NetworkInterface {
    "name": string;
    "rx_bytes": number;
    "tx_bytes": number;
    "rx_packets": number;
    "tx_packets": number;
    "is_up": boolean;
    "rx_errors"?: number | null;
    "tx_errors"?: number | null;
    "rx_dropped"?: number | null;
    "tx_dropped"?: number | null;
    "kind"?: string | null;
    "stacked_on"?: Array<string> | null;
    "speed_mbps"?: number | null;
    "operstate"?: string | null;
    "ifindex"?: number | null;
    "permanent_address"?: string | null;
    "bus_path"?: string | null;
    "alias"?: string | null;
    "carrier_changes"?: number | null;
  }
  interface NewEnrolment {
    "uses"?: number;
    "expires_minutes"?: number;
    "name"?: string;
  }
  interface NewInterfaceLabels {
    "display_name"?: string | null;
  }
  interface NewLabels {
    "display_name"?: string | null;
    "tags"?: Array<string>;
  }
  interface NewLink {
    "interface": string;
    "into": string;
    "since"?: string | null;
    "until"?: string | null;
    "sum"?: boolean;
  }
  interface NewPicture {
    "server_id": string;
    "metric": "network" | "cpu" | "memory" | "disk" | "temperature" | "filesystem";
    "interface"?: string | null;
    "mount_point"?: string | null;
    "expires_in_days"?: number | null;
  }
  interface NewServer {
    "server_id": string;
    "server_guid"?: string | null;
    "name"?: string;
  }
  interface NewSuccession {
    "predecessor": string;
    "since": string;
  }
  interface NewToken {
    "kind": "server" | "fleet" | "read" | "admin";
    "server_id"?: string | null;
    "server_guid"?: string | null;
    "name"?: string;
    "expires_days"?: number | null;
  }
  interface Overlap {
    "since": string;
    "until": string;
    "samples": number;
  }
  interface PastEpisode {
    "server_id": string;
    "subject": string;
    "active_at": string;
    "fired_at": string;
    "cleared_at": string | null;
    "resolved_at": string | null;
    "value": number | null;
    "peak": number | null;
    "reason": string | null;
  }
  interface Peak {
    "server_id": string;
    "interface": string;
    "rx_bps_max": number | null;
    "tx_bps_max": number | null;
    "errors": number;
    "dropped": number;
  }
  interface Percentile {
    "samples": number;
    "slots": number;
    "of_samples": Rates | null;
    "of_slots": Rates | null;
  }
  interface PeriodDefinition {
    "name": string;
    "seconds": number;
    "base_seconds": number;
    "bucket_seconds": number;
  }
  interface PictureLink {
    "path": string;
    "expires_at": string;
  }
  interface PingChannel {
    "min_severity"?: "info" | "warning" | "critical";
    "sends_resolved"?: boolean;
    "sends_late"?: boolean;
    "digest_seconds"?: number;
    "time_zone"?: string;
    "enabled"?: boolean;
    "kind": "ping";
    "url": string;
  }
  interface Point {
    "timestamp": string;
    "rx_bytes": number | null;
    "tx_bytes": number | null;
    "rx_bps": number | null;
    "tx_bps": number | null;
  }
  interface ProblemBody {
    "code": string;
    "status": number;
    "title": string;
    "type"?: string;
    "detail"?: string;
    "errors"?: Array<FieldError>;
  }
  interface Quota {
    "bytes": number;
    "direction"?: "in" | "out" | "sum" | "max";
    "billing_day"?: number;
    "time_zone"?: string;
    "interface"?: string | null;
    "near_percent"?: number;
  }
  interface QuotaRule {
    "scope"?: Scope;
    "for_seconds"?: number;
    "keep_seconds"?: number;
    "severity"?: "info" | "warning" | "critical";
    "channels"?: Array<string> | null;
    "repeat_seconds"?: number | null;
    "enabled"?: boolean;
    "note"?: string;
    "runbook"?: string;
    "kind": "quota";
    "percent"?: Array<number>;
    "forecast"?: boolean;
  }
  interface QuotaState {
    "bytes": number;
    "direction"?: "in" | "out" | "sum" | "max";
    "billing_day"?: number;
    "time_zone"?: string;
    "interface"?: string | null;
    "near_percent"?: number;
    "since": string;
    "until": string;
    "used_bytes": number;
    "used_percent": number;
    "expected_bytes": number | null;
    "state": "ok" | "near" | "over";
    "sums"?: Array<Sum>;
  }
  interface RateRule {
    "scope"?: Scope;
    "for_seconds"?: number;
    "keep_seconds"?: number;
    "severity"?: "info" | "warning" | "critical";
    "channels"?: Array<string> | null;
    "repeat_seconds"?: number | null;
    "enabled"?: boolean;
    "note"?: string;
    "runbook"?: string;
    "kind": "rate";
    "direction"?: "rx" | "tx" | "sum" | "max";
    "above_bps"?: number | null;
    "below_bps"?: number | null;
    "above_percent"?: number | null;
    "below_percent"?: number | null;
    "window_seconds"?: number;
    "clear_percent"?: number;
  }
  interface Rates {
    "rx_bps": number;
    "tx_bps": number;
    "max_bps": number;
    "sum_bps": number;
  }
  interface Readiness {
    "status": "ready" | "not ready";
    "database": string;
    "schema": string;
    "ingest": string;
    "jobs": string;
    "alerts": string;
    "edition": string;
    "durability": string;
    "durability_asked": "local" | "replicated";
    "durability_in_force": "local" | "replicated" | "none";
  }
  interface Rejected {
    "index": number;
    "code": string;
    "errors": Array<FieldError>;
  }
  interface ReportRequest {
    "within_seconds": number;
  }
  interface Scope {
    "servers"?: Array<string> | null;
    "interfaces"?: Array<string> | null;
    "kinds"?: Array<string> | null;
    "tags"?: Array<string> | null;
  }
  interface Series {
    "interface": string;
    "data": Array<Point>;
  }
  interface Server {
    "id": string;
    "hostname": string;
    "server_guid": string | null;
    "status": "online" | "offline";
    "paused": boolean;
    "first_seen": string;
    "last_seen": string;
    "agent_version": string | null;
    "primary_interface": string | null;
    "os_info": Record<string, unknown> | null;
    "latest_metrics": HostMetrics | null;
    "shared_since": string | null;
    "shared_at": string | null;
    "duplicates": number;
    "conflicts": number;
    "network_interfaces": Array<InterfaceState>;
    "filesystems": Array<MountedFilesystem>;
    "display_name": string | null;
    "tags": Array<string>;
  }
  interface ServerAliases {
    "server_id": string;
    "aliases": Array<string>;
  }
  interface ServerPage {
    "servers": Array<Server>;
    "next": string | null;
  }
  interface ServerTotal {
    "server_id": string;
    "rx_bytes": number;
    "tx_bytes": number;
    "samples": number;
  }
  interface ServerUsage {
    "rx_bytes": number;
    "tx_bytes": number;
    "total_bytes": number;
    "server_id": string;
    "hostname": string;
    "quota": QuotaState | null;
  }
  interface SessionInfo {
    "name": string;
    "via": "token" | "session" | "proxy";
    "kind": "key" | "admin" | "read";
    "permissions": Array<"read" | "admin">;
  }
  interface SilentRule {
    "scope"?: Scope;
    "for_seconds"?: number;
    "keep_seconds"?: number;
    "severity"?: "info" | "warning" | "critical";
    "channels"?: Array<string> | null;
    "repeat_seconds"?: number | null;
    "enabled"?: boolean;
    "note"?: string;
    "runbook"?: string;
    "kind": "silent";
    "after_seconds"?: number | null;
  }
  interface Sparkline {
    "server_id": string;
    "metric": "network";
    "interface": string | null;
    "period": string;
    "bucket_seconds": number;
    "data": Array<Point>;
    "interfaces"?: Array<string>;
    "sums"?: Array<Sum>;
  }
  interface Succession {
    "server_id": string;
    "predecessor": string | null;
    "since": string | null;
    "successor": string | null;
    "until": string | null;
  }
  interface SuccessionPreview {
    "before": Array<ServerTotal>;
    "after": Array<ServerTotal>;
  }
  interface SuggestedPredecessor {
    "predecessor": string;
    "since": string;
    "gone_at": string;
    "evidence": Array<"server_guid" | "permanent_address">;
  }
  interface Suggestion {
    "interface": string;
    "into": string;
    "gone_at": string;
    "appeared_at": string;
  }
  interface Suggestions {
    "server_id": string;
    "suggestions": Array<SuggestedPredecessor>;
  }
  interface Sum {
    "server_id": string;
    "interface": string;
    "of": Array<string>;
  }
  interface SystemHealth {
    "status": "ok" | "degraded" | "failing";
    "database": string;
    "schema": string;
    "ingest": string;
    "durability": string;
    "edition": string;
    "queue_heartbeats": number;
    "jobs": Array<Job>;
  }
  interface SystemInfo {
    "version": string;
    "edition": string;
    "schema_revision": string;
    "timescaledb_version": string;
    "postgresql_version": string;
    "started_at": string;
    "installed_at": string;
    "database_bytes": number;
    "servers": number;
    "servers_online": number;
    "interfaces": number;
    "duplicates": number;
    "conflicts": number;
    "retention_days": Record<string, number>;
    "maintenance": string;
    "durability_asked": "local" | "replicated";
    "durability_in_force": "local" | "replicated" | "none";
  }
  interface TagTraffic {
    "tag": string | null;
    "servers": number;
    "rx_bytes": number;
    "tx_bytes": number;
    "total_bytes": number;
  }
  interface Talker {
    "server_id": string;
    "interface": string | null;
    "rx_bytes": number;
    "tx_bytes": number;
    "total_bytes": number;
  }
  interface TokenInfo {
    "id": string;
    "kind": "server" | "fleet" | "read" | "admin" | "enrolment";
    "server_id": string | null;
    "name": string;
    "state": "active" | "expired" | "revoked" | "spent";
    "created_at": string;
    "expires_at": string | null;
    "last_used_at": string | null;
    "revoked_at": string | null;
    "uses_left": number | null;
  }
  interface TokenPage {
    "tokens": Array<TokenInfo>;
    "next": string | null;
  }
  interface Totals {
    "since": string;
    "until": string;
    "rx_bytes": number;
    "tx_bytes": number;
    "rx_packets": number;
    "tx_packets": number;
    "rx_errors": number;
    "tx_errors": number;
    "rx_dropped": number;
    "tx_dropped": number;
    "samples": number;
    "resets": number;
    "rejected": number;
    "rx_bps_max": number | null;
    "tx_bps_max": number | null;
  }
  interface TrafficBucket {
    "timestamp": string;
    "server_id": string;
    "interface": string | null;
    "rx_bytes": number;
    "tx_bytes": number;
    "rx_packets": number;
    "tx_packets": number;
    "rx_errors": number;
    "tx_errors": number;
    "rx_dropped": number;
    "tx_dropped": number;
    "rx_bps": number;
    "tx_bps": number;
    "rx_bps_max": number | null;
    "tx_bps_max": number | null;
    "samples": number;
    "expected_samples": number;
    "coverage": number;
    "up_samples": number;
    "resets": number;
    "rejected": number;
  }
  interface TrafficEvent {
    "timestamp": string;
    "kind": "reboot" | "reset" | "rejected" | "glitch";
    "interfaces": Array<string>;
    "elapsed_seconds": number | null;
  }
  interface TrafficEvents {
    "server_id": string;
    "since": string;
    "until": string;
    "data": Array<TrafficEvent>;
    "next": string | null;
    "sums"?: Array<Sum>;
  }
  interface TrafficHistory {
    "since": string;
    "until": string;
    "bucket_seconds": number;
    "data": Array<TrafficBucket>;
    "next": string | null;
    "sums"?: Array<Sum>;
  }
  interface TrafficSummary {
    "period": string;
    "since": string;
    "rx_bytes": number;
    "tx_bytes": number;
    "total_bytes": number;
    "servers": number;
    "interfaces": number;
    "top_servers": Array<Talker>;
    "top_interfaces": Array<Talker>;
    "groups"?: Array<TagTraffic>;
    "sums"?: Array<Sum>;
  }
  interface Usage {
    "server_id": string;
    "interface": string | null;
    "time_zone": string;
    "billing_day": number;
    "month": Month;
    "by": "day" | "month";
    "since": string;
    "until": string;
    "days": Array<Day>;
    "months": Array<Month>;
    "interfaces": Array<InterfaceUsage>;
    "quota": QuotaState | null;
    "sums"?: Array<Sum>;
  }
  interface WebhookChannel {
    "min_severity"?: "info" | "warning" | "critical";
    "sends_resolved"?: boolean;
    "sends_late"?: boolean;
    "digest_seconds"?: number;
    "time_zone"?: string;
    "enabled"?: boolean;
    "kind": "webhook";
    "url": string;
    "secret"?: string | null;
  }
  interface Weekly {
    "from": string;
    "until": string;
    "days"?: Array<number> | null;
  }
  interface Get {
    "/api/v1/agents": { asked: { query?: { "after"?: string | null; "limit"?: number | null; "order"?: "asc" | "desc" | null; "search"?: string | null; "sort"?: "id" | "hostname" | "last_seen" | null; "status"?: "online" | "offline" | null; "tag"?: Array<string> | null } }; answer: AgentPage };
    "/api/v1/alert-channels": { asked: { query?: { "after"?: string | null; "limit"?: number | null } }; answer: AlertChannels };
    "/api/v1/alert-channels/{channel_id}": { asked: { path: { "channel_id": string } }; answer: AlertChannel };
    "/api/v1/alert-messages": { asked: { query?: { "after"?: string | null; "channel"?: string | null; "limit"?: number | null; "state"?: "waiting" | "retrying" | "delivered" | "dead" | null } }; answer: AlertMessages };
    "/api/v1/alert-mutes": { asked: { query?: { "after"?: string | null; "limit"?: number | null } }; answer: AlertMutes };
    "/api/v1/alert-mutes/{mute_id}": { asked: { path: { "mute_id": string } }; answer: AlertMute };
    "/api/v1/alert-rules": { asked: { query?: { "after"?: string | null; "limit"?: number | null } }; answer: AlertRules };
    "/api/v1/alert-rules/{rule_id}": { asked: { path: { "rule_id": string } }; answer: AlertRule };
    "/api/v1/alerts": { asked: { query?: { "after"?: string | null; "limit"?: number | null; "rule"?: string | null; "server"?: string | null; "severity"?: "info" | "warning" | "critical" | null; "state"?: "pending" | "firing" | null } }; answer: Alerts };
    "/api/v1/alerts/events": { asked: { query?: { "cursor"?: string | null; "episode"?: string | null; "limit"?: number | null; "rule"?: string | null; "server"?: string | null } }; answer: AlertEvents };
    "/api/v1/audit": { asked: { query?: { "action"?: string | null; "actor"?: string | null; "after"?: string | null; "limit"?: number | null; "server"?: string | null; "since"?: string | null; "until"?: string | null } }; answer: AuditPage };
    "/api/v1/export/traffic": { asked: { query?: { "after"?: string | null; "bucket"?: "raw" | "1m" | "15m" | "1h" | "1d" | null; "format"?: "csv" | "json" | "ndjson" | "parquet" | null; "interface"?: Array<string> | null; "limit"?: number | null; "server"?: Array<string> | null; "since"?: string | null; "tag"?: Array<string> | null; "until"?: string | null } }; answer: string };
    "/api/v1/fleet": { asked: { query?: { "after"?: string | null; "limit"?: number | null; "since"?: string | null; "tag"?: Array<string> | null } }; answer: Fleet };
    "/api/v1/fleet/peaks": { asked: { query?: { "after"?: string | null; "limit"?: number | null; "period"?: "1h" | "24h" | "7d" | "30d" | "1y" | null } }; answer: FleetPeaks };
    "/api/v1/fleet/sparklines": { asked: { query?: { "bucket"?: string | null; "period"?: "1h" | "24h" | "7d" | "30d" | "1y" | null; "series"?: Array<string> | null } }; answer: FleetColumns };
    "/api/v1/metrics/sparkline/network": { asked: { query?: { "after"?: string | null; "bucket"?: string | null; "fill"?: "none" | "null" | null; "limit"?: number | null; "period"?: "1h" | "24h" | "7d" | "30d" | "1y" | null; "server"?: Array<string> | null; "tag"?: Array<string> | null } }; answer: FleetSparkline };
    "/api/v1/metrics/sparkline/{server_id}/cpu": { asked: { path: { "server_id": string }; query?: { "bucket"?: string | null; "fill"?: "none" | "null" | null; "period"?: "1h" | "24h" | "7d" | "30d" | "1y" | null } }; answer: GaugeSparkline };
    "/api/v1/metrics/sparkline/{server_id}/disk": { asked: { path: { "server_id": string }; query?: { "bucket"?: string | null; "fill"?: "none" | "null" | null; "period"?: "1h" | "24h" | "7d" | "30d" | "1y" | null } }; answer: GaugeSparkline };
    "/api/v1/metrics/sparkline/{server_id}/filesystem": { asked: { path: { "server_id": string }; query: { "bucket"?: string | null; "fill"?: "none" | "null" | null; "mount_point": string; "period"?: "1h" | "24h" | "7d" | "30d" | "1y" | null } }; answer: FilesystemSparkline };
    "/api/v1/metrics/sparkline/{server_id}/load": { asked: { path: { "server_id": string }; query?: { "bucket"?: string | null; "fill"?: "none" | "null" | null; "period"?: "1h" | "24h" | "7d" | "30d" | "1y" | null } }; answer: GaugeSparkline };
    "/api/v1/metrics/sparkline/{server_id}/memory": { asked: { path: { "server_id": string }; query?: { "bucket"?: string | null; "fill"?: "none" | "null" | null; "period"?: "1h" | "24h" | "7d" | "30d" | "1y" | null } }; answer: GaugeSparkline };
    "/api/v1/metrics/sparkline/{server_id}/network": { asked: { path: { "server_id": string }; query?: { "bucket"?: string | null; "fill"?: "none" | "null" | null; "group_by"?: "interface" | null; "interface"?: string | null; "period"?: "1h" | "24h" | "7d" | "30d" | "1y" | null } }; answer: Sparkline | GroupedSparkline };
    "/api/v1/metrics/sparkline/{server_id}/temperature": { asked: { path: { "server_id": string }; query?: { "bucket"?: string | null; "fill"?: "none" | "null" | null; "period"?: "1h" | "24h" | "7d" | "30d" | "1y" | null } }; answer: GaugeSparkline };
    "/api/v1/servers": { asked: { query?: { "after"?: string | null; "limit"?: number | null; "order"?: "asc" | "desc" | null; "search"?: string | null; "sort"?: "id" | "hostname" | "last_seen" | null; "status"?: "online" | "offline" | null; "tag"?: Array<string> | null } }; answer: ServerPage };
    "/api/v1/servers/{server_id}": { asked: { path: { "server_id": string } }; answer: Server };
    "/api/v1/servers/{server_id}/agent": { asked: { path: { "server_id": string } }; answer: Agent };
    "/api/v1/servers/{server_id}/aliases": { asked: { path: { "server_id": string } }; answer: ServerAliases };
    "/api/v1/servers/{server_id}/config": { asked: { path: { "server_id": string } }; answer: AgentConfig };
    "/api/v1/servers/{server_id}/interfaces": { asked: { path: { "server_id": string }; query?: { "after"?: string | null; "gone"?: boolean | null; "is_up"?: boolean | null; "kind"?: string | null; "limit"?: number | null; "search"?: string | null } }; answer: InterfacePage };
    "/api/v1/servers/{server_id}/interfaces/{name}": { asked: { path: { "name": string; "server_id": string } }; answer: Interface };
    "/api/v1/servers/{server_id}/interfaces/{name}/labels": { asked: { path: { "name": string; "server_id": string } }; answer: InterfaceLabels };
    "/api/v1/servers/{server_id}/interfaces/{name}/stats": { asked: { path: { "name": string; "server_id": string }; query?: { "time_zone"?: string | null } }; answer: InterfaceStats };
    "/api/v1/servers/{server_id}/labels": { asked: { path: { "server_id": string } }; answer: Labels };
    "/api/v1/servers/{server_id}/links": { asked: { path: { "server_id": string } }; answer: InterfaceLinks };
    "/api/v1/servers/{server_id}/names": { asked: { path: { "server_id": string } }; answer: Names };
    "/api/v1/servers/{server_id}/quota": { asked: { path: { "server_id": string } }; answer: QuotaState };
    "/api/v1/servers/{server_id}/succession": { asked: { path: { "server_id": string } }; answer: Succession };
    "/api/v1/servers/{server_id}/succession/suggestions": { asked: { path: { "server_id": string } }; answer: Suggestions };
    "/api/v1/session": { asked: {}; answer: SessionInfo };
    "/api/v1/system/definitions": { asked: {}; answer: Definitions };
    "/api/v1/system/health": { asked: {}; answer: SystemHealth };
    "/api/v1/system/info": { asked: {}; answer: SystemInfo };
    "/api/v1/tokens": { asked: { query?: { "after"?: string | null; "kind"?: "server" | "fleet" | "read" | "admin" | "enrolment" | null; "limit"?: number | null; "server_id"?: string | null } }; answer: TokenPage };
    "/api/v1/traffic/events": { asked: { query: { "after"?: string | null; "interface"?: string | null; "limit"?: number | null; "server": string; "since"?: string | null; "until"?: string | null } }; answer: TrafficEvents };
    "/api/v1/traffic/history": { asked: { query?: { "after"?: string | null; "bucket"?: string | null; "group_by"?: "server" | null; "interface"?: string | null; "limit"?: number | null; "server"?: string | null; "since"?: string | null; "until"?: string | null } }; answer: TrafficHistory };
    "/api/v1/traffic/latest": { asked: { query?: { "after"?: string | null; "limit"?: number | null; "server"?: string | null } }; answer: LatestPage };
    "/api/v1/traffic/summary": { asked: { query?: { "group_by"?: string | null; "period"?: "1h" | "24h" | "7d" | "30d" | "1y" | null; "server"?: string | null; "tag"?: Array<string> | null; "top"?: number | null } }; answer: TrafficSummary };
    "/api/v1/usage": { asked: { query?: { "after"?: string | null; "at"?: string | null; "billing_day"?: number | null; "direction"?: "in" | "out" | "sum" | "max" | null; "limit"?: number | null; "time_zone"?: string | null } }; answer: FleetUsage };
    "/api/v1/usage/{server_id}": { asked: { path: { "server_id": string }; query?: { "billing_day"?: number | null; "by"?: "day" | "month" | null; "interface"?: string | null; "since"?: string | null; "time_zone"?: string | null; "until"?: string | null } }; answer: Usage };
    "/health": { asked: {}; answer: Alive };
    "/health/ready": { asked: {}; answer: Readiness };
  }
  interface Post {
    "/api/v1/agents/enroll": { asked: { body: Enrolling }; answer: Created };
    "/api/v1/agents/heartbeat": { asked: { body: Heartbeat }; answer: HeartbeatAnswer };
    "/api/v1/agents/heartbeats": { asked: { body: Array<Heartbeat> }; answer: BatchAnswer };
    "/api/v1/alert-channels/{channel_id}/test": { asked: { path: { "channel_id": string } }; answer: ChannelTest };
    "/api/v1/alert-rules/test": { asked: { query?: { "since"?: string | null; "until"?: string | null }; body: SilentRule | LinkRule | RateRule | QuotaRule | FilesystemRule | ErrorsRule | AccountRule | AgentRule }; answer: Backtest };
    "/api/v1/alerts/{episode}/acknowledge": { asked: { path: { "episode": string } }; answer: Alert };
    "/api/v1/enrolments": { asked: { body: NewEnrolment }; answer: Created };
    "/api/v1/pictures": { asked: { body: NewPicture }; answer: PictureLink };
    "/api/v1/servers": { asked: { body: NewServer }; answer: Created };
    "/api/v1/servers/{server_id}/links": { asked: { path: { "server_id": string }; body: NewLink }; answer: InterfaceLink };
    "/api/v1/servers/{server_id}/links/preview": { asked: { path: { "server_id": string }; body: NewLink }; answer: LinkPreview };
    "/api/v1/servers/{server_id}/report": { asked: { path: { "server_id": string } }; answer: ReportRequest };
    "/api/v1/servers/{server_id}/succession/preview": { asked: { path: { "server_id": string }; body: NewSuccession }; answer: SuccessionPreview };
    "/api/v1/tokens": { asked: { body: NewToken }; answer: Created };
  }
  interface Put {
    "/api/v1/alert-channels/{channel_id}": { asked: { path: { "channel_id": string }; body: WebhookChannel | EmailChannel | AlertmanagerChannel | PingChannel | AppriseChannel }; answer: AlertChannel };
    "/api/v1/alert-mutes/{mute_id}": { asked: { path: { "mute_id": string }; body: Mute }; answer: AlertMute };
    "/api/v1/alert-rules/{rule_id}": { asked: { path: { "rule_id": string }; body: SilentRule | LinkRule | RateRule | QuotaRule | FilesystemRule | ErrorsRule | AccountRule | AgentRule }; answer: AlertRule };
    "/api/v1/servers/{server_id}/aliases/{alias}": { asked: { path: { "alias": string; "server_id": string } }; answer: ServerAliases };
    "/api/v1/servers/{server_id}/config": { asked: { path: { "server_id": string }; body: AgentConfig }; answer: AgentConfig };
    "/api/v1/servers/{server_id}/interfaces/{name}/labels": { asked: { path: { "name": string; "server_id": string }; body: NewInterfaceLabels }; answer: InterfaceLabels };
    "/api/v1/servers/{server_id}/labels": { asked: { path: { "server_id": string }; body: NewLabels }; answer: Labels };
    "/api/v1/servers/{server_id}/quota": { asked: { path: { "server_id": string }; body: Quota }; answer: QuotaState };
    "/api/v1/servers/{server_id}/succession": { asked: { path: { "server_id": string }; body: NewSuccession }; answer: Succession };
  }
  interface Delete {
    "/api/v1/alert-channels/{channel_id}": { asked: { path: { "channel_id": string } }; answer: null };
    "/api/v1/alert-mutes/{mute_id}": { asked: { path: { "mute_id": string } }; answer: null };
    "/api/v1/alert-rules/{rule_id}": { asked: { path: { "rule_id": string } }; answer: null };
    "/api/v1/servers/{server_id}": { asked: { path: { "server_id": string } }; answer: null };
    "/api/v1/servers/{server_id}/aliases/{alias}": { asked: { path: { "alias": string; "server_id": string } }; answer: null };
    "/api/v1/servers/{server_id}/config": { asked: { path: { "server_id": string } }; answer: null };
    "/api/v1/servers/{server_id}/links/{link_id}": { asked: { path: { "link_id": string; "server_id": string } }; answer: null };
    "/api/v1/servers/{server_id}/quota": { asked: { path: { "server_id": string } }; answer: null };
    "/api/v1/servers/{server_id}/succession": { asked: { path: { "server_id": string } }; answer: null };
    "/api/v1/tokens/{token_id}": { asked: { path: { "token_id": string } }; answer: null };
  }
}
