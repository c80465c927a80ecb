package server

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caarlos0/env/v11"

	"caracal.run/management/server/egress"
	"caracal.run/management/server/secret"
	"caracal.run/management/server/sts"
	"caracal.run/management/store/redisconn"
	"caracal.run/management/store/seal"
)

// Config holds the settings. The value of each is in an environment variable, or in
// a file whose path is in the variable with the suffix _FILE. The table in the guides is
// generated from these tags.
type Config struct {
	Mode           string        `env:"CARACAL_MODE" default:"stable" help:"dev, rc (release candidate) or stable; rc and stable require STREAMS_HMAC_KEY, and disable /docs and /metrics by default"`
	Host           string        `env:"HOST" help:"address to listen on; defaults to 127.0.0.1 in dev mode, otherwise to all addresses"`
	Port           int           `env:"PORT" default:"3000" min:"0" help:"port to listen on; 0 chooses a free port"`
	DatabaseURL    secret.String `env:"DATABASE_URL" help:"Postgres connection URL with the service role (caracal_service); required"`
	RedisURL       secret.String `env:"REDIS_URL" help:"Redis URL, for events, shared rate limits and started OAuth authorizations: redis://, rediss:// or unix://, also of a cluster or of Sentinels; required"`
	AdminToken     secret.String `env:"CARACAL_ADMIN_TOKEN" help:"bootstrap admin token, from which the tokens of the Console are derived"`
	ZoneKEK        secret.String `env:"ZONE_KEK" help:"key-encryption keys: one or more 32-byte keys in hexadecimal, separated by commas or white space; the first wraps data keys, all unwrap them; required"`
	StreamsHMACKey secret.String `env:"STREAMS_HMAC_KEY" help:"HMAC key that signs events: hexadecimal, at least 32 bytes; required in rc and stable"`
	AuditHMACKey   secret.String `env:"AUDIT_HMAC_KEY" help:"HMAC key that signs the seals of the audit logs, and with which other services sign audit events: hexadecimal, at least 32 bytes; if it is not set, seals are not signed and signatures of events not verified"`
	GatewaySTSKey  secret.String `env:"GATEWAY_STS_HMAC_KEY" help:"HMAC key that signs requests to the STS: hexadecimal, at least 32 bytes; if it is not set, the STS is not asked, and the status of an activation stays waiting_for_sts"`
	STSURL         string        `env:"STS_URL" default:"http://localhost:8080" help:"URL of the security token service (STS), which loads the policies of the zones; may be an internal address"`
	MetricsBearer  secret.String `env:"METRICS_BEARER" help:"bearer token for /metrics; if it is not set, /metrics requires no token in dev mode, and returns 401 otherwise"`
	Docs           *bool         `env:"API_DOCS" help:"whether to serve /docs, the interactive API documentation; defaults to true in dev mode, otherwise to false"`
	LogLevel       string        `env:"LOG_LEVEL" default:"info" help:"minimum level of log messages: debug, info, warn or error"`
	WorkerID       string        `env:"WORKER_ID" help:"name of this process in Postgres, in Redis and in the log; defaults to the host name and the process ID"`

	BodyLimit      int64        `env:"API_BODY_LIMIT_BYTES" default:"1048576" min:"1" help:"maximum size of a request body, in bytes"`
	RequestTimeout milliseconds `env:"REQUEST_TIMEOUT_MS" default:"30000" min:"1" help:"maximum time to read a request"`
	KeepAlive      milliseconds `env:"KEEP_ALIVE_TIMEOUT_MS" default:"75000" min:"1" help:"maximum idle time of a client connection"`
	DrainDelay     milliseconds `env:"DRAIN_DELAY_MS" default:"0" min:"0" help:"time to continue serving after SIGTERM, while /ready returns 503"`
	ShutdownGrace  milliseconds `env:"SHUTDOWN_GRACE_MS" default:"15000" min:"1" help:"maximum duration of the shutdown after DRAIN_DELAY_MS"`

	PublicURL   PublicURL      `env:"PUBLIC_URL" help:"URL under which clients reach the service, such as https://api.example.com/caracal, or the path of that URL; used in Link headers, in tokens and metadata for OAuth clients, in /docs and in the OpenAPI document"`
	TrustProxy  TrustedProxies `env:"TRUST_PROXY" default:"false" help:"proxies from which to take the client address: false, true (one proxy), their number, or a list of their addresses and networks"`
	ProxyHeader string         `env:"TRUST_PROXY_HEADER" default:"X-Forwarded-For" help:"header with the client address: X-Forwarded-For or Forwarded; must be the one that the proxies set"`

	PoolMax          int          `env:"DB_POOL_MAX" default:"20" min:"1" help:"maximum number of pooled Postgres connections, of which exports use at most an eighth, but at least 1; each process has up to 4 more: 2 that reads share, 1 for notifications and, as the leader, 1 to publish events"`
	ConnectTimeout   milliseconds `env:"DB_CONNECTION_TIMEOUT_MS" default:"5000" min:"1" help:"maximum time to connect to Postgres"`
	IdleTimeout      milliseconds `env:"DB_IDLE_TIMEOUT_MS" default:"30000" min:"1" help:"idle time after which a Postgres connection is closed"`
	StatementTimeout milliseconds `env:"DB_STATEMENT_TIMEOUT_MS" default:"15000" min:"1" help:"maximum duration of an SQL statement"`
	IdleInTxTimeout  milliseconds `env:"DB_IDLE_IN_TX_TIMEOUT_MS" default:"30000" min:"1" help:"maximum idle time of an open transaction"`

	OutboxBatch       int          `env:"OUTBOX_BATCH_SIZE" default:"500" min:"1" help:"maximum number of events sent to Redis in one pipeline"`
	OutboxPoll        milliseconds `env:"OUTBOX_POLL_MS" default:"250" min:"1" help:"interval at which Postgres is polled for pending events"`
	OutboxMaxAttempts int          `env:"OUTBOX_MAX_ATTEMPTS" default:"5" min:"1" help:"number of rejected attempts after which an event becomes a dead letter"`
	OutboxStreamLen   int64        `env:"OUTBOX_STREAM_MAXLEN" default:"100000" min:"1" help:"approximate number of entries that a stream keeps"`
	OutboxRetention   hours        `env:"OUTBOX_RETENTION_HOURS" default:"168" min:"1" help:"time that published events are kept in Postgres"`

	SessionRetention   int     `env:"SESSION_RETENTION_DAYS" default:"90" min:"1" help:"number of days that expired and revoked sessions, terminated agent sessions and their delegation edges are kept in Postgres"`
	ChallengeRetention int     `env:"STEP_UP_CHALLENGE_RETENTION_DAYS" default:"90" min:"1" help:"number of days that step-up challenges are kept in Postgres after their expiry"`
	AuditRetentionDays int     `env:"AUDIT_RETENTION_DAYS" default:"365" min:"1" help:"maximum number of days that authorization audit events are kept; PUT /v1/audit-retention can set fewer"`
	AuditClaimIdle     seconds `env:"AUDIT_CLAIM_IDLE_SECS" default:"30" min:"1" help:"time after which a replica takes over audit events that another one has received and not stored"`
	AuditMaxDeliveries int64   `env:"AUDIT_MAX_DELIVERIES" default:"8" min:"1" help:"number of failed attempts to store an audit event after which it becomes a dead letter; outages of Postgres do not count"`

	RequestsPerMinute     int     `env:"API_V1_RATE_LIMIT_PER_MIN" default:"600" min:"0" help:"maximum requests to the API, that is, to /v1, /oauth and /.well-known, per minute, per client address and per token; 0 disables the limit"`
	ReadyPerMinute        int     `env:"READY_RATE_LIMIT_PER_MIN" default:"120" min:"0" help:"maximum requests to /ready per minute, per client address; 0 disables the limit"`
	AuthFailuresPerMinute int     `env:"ADMIN_AUTH_FAIL_LIMIT_PER_MIN" default:"60" min:"0" help:"maximum failed authentications per minute, per client address and, at the token endpoint, also per application; 0 disables the limit"`
	STSIssuerURL          string  `env:"STS_ISSUER_URL" help:"issuer (iss) of the tokens of all zones; if it is not set, each zone is an issuer: PUBLIC_URL followed by /v1/zones/ and the ID of the zone"`
	STSJWKSURL            string  `env:"STS_JWKS_URL" help:"URL of the keys of another service that issues the tokens of the Control API, to which the parameter zone_id is added; may be an internal address. It requires STS_ISSUER_URL, and this service then issues no tokens"`
	ControlAudience       string  `env:"CONTROL_AUDIENCE" default:"caracal-control" help:"identifier of the control resource, which only global tokens can access"`
	ControlEnabled        bool    `env:"CARACAL_CONTROL_ENABLED" default:"false" help:"whether to offer the Control API (POST /v1/control/invoke)"`
	ControlGateFile       string  `env:"CONTROL_GATE_FILE" help:"file that opens the Control API while it exists; if it is not set, the Control API stays closed"`
	ControlPerMinute      int     `env:"CONTROL_INVOKE_IP_RATE_LIMIT_PER_MIN" default:"120" min:"0" help:"maximum requests to the Control API per minute, per client address; 0 disables the limit"`
	ControlCapacity       int     `env:"CONTROL_RATE_CAPACITY" default:"60" min:"0" help:"maximum invocations of a Control key in CONTROL_RATE_WINDOW_SEC; 0 disables the limit"`
	ControlWindow         seconds `env:"CONTROL_RATE_WINDOW_SEC" default:"60" min:"1" help:"time in which a Control key can make CONTROL_RATE_CAPACITY invocations"`
	MaxResourcesPerZone   int     `env:"API_MAX_RESOURCES_PER_ZONE" default:"100000" min:"0" help:"maximum number of active resources per zone; 0 disables the limit"`
	ApproveWithWrite      bool    `env:"STEP_UP_APPROVE_WITH_WRITE" default:"false" help:"whether every token with write permission can satisfy and reject step-up challenges, as if it had approval permission"`
	LastUsedDebounce      seconds `env:"ADMIN_TOKEN_LAST_USED_DEBOUNCE_SEC" default:"60" min:"0" help:"minimum time between two updates of a token's last_used_at"`

	// Egress configures outbound requests. It is not a setting: only tests change it.
	Egress egress.Options `json:"-"`

	// ManualJobs makes periodic jobs run only when [Service.RunJobs] is called. It is not a
	// setting: only tests change it.
	ManualJobs bool `json:"-"`

	zoneKEKFile string // the file that ZONE_KEK was read from, if any
}

type (
	milliseconds int64
	seconds      int64
	hours        int64
)

func (m milliseconds) duration() time.Duration { return time.Duration(m) * time.Millisecond }
func (s seconds) duration() time.Duration      { return time.Duration(s) * time.Second }
func (h hours) duration() time.Duration        { return time.Duration(h) * time.Hour }

// LoadConfig reads the settings from an environment such as [os.Environ]. Its error is
// a [ConfigErrors] with every invalid setting. The mode and the log level are set even
// then.
func LoadConfig(environ []string) (Config, error) {
	return loadConfig(environ, func(string) bool { return true })
}

// LoadStoreConfig is like [LoadConfig], but requires only the settings that
// [Config.OpenStore] uses.
func LoadStoreConfig(environ []string) (Config, error) { return loadConfig(environ, UsedByStore) }

// UsedByStore reports whether [Config.OpenStore] uses a setting.
func UsedByStore(setting string) bool {
	return strings.HasPrefix(setting, "DATABASE_") || strings.HasPrefix(setting, "DB_") ||
		slices.Contains([]string{"ZONE_KEK", "WORKER_ID", "CONTROL_AUDIENCE", "API_MAX_RESOURCES_PER_ZONE"}, setting)
}

// LoadAuditKey returns AUDIT_HMAC_KEY, or nil if it is not set. It requires no other
// setting.
func LoadAuditKey(environ []string) ([]byte, error) {
	c, err := loadConfig(environ, UsedByAuditVerify)
	if err != nil {
		return nil, err
	}
	return hmacKey(c.AuditHMACKey)
}

// UsedByAuditVerify reports whether the verification of an export uses a setting.
func UsedByAuditVerify(setting string) bool { return setting == "AUDIT_HMAC_KEY" }

func loadConfig(environ []string, used func(setting string) bool) (Config, error) {
	var invalid ConfigErrors
	values := withFiles(environ, &invalid)
	c, err := env.ParseAsWithOptions[Config](env.Options{
		Environment: values, DefaultValueTagName: "default",
		FuncMap: map[reflect.Type]env.ParserFunc{reflect.TypeFor[bool](): parseBool},
	})
	if err != nil {
		invalid.addParseErrors(err, values)
	}
	c.zoneKEKFile = values["ZONE_KEK_FILE"]
	c.validate(&invalid)
	return c, invalid.of(used)
}

// Keys loads the key-encryption keys of ZONE_KEK. If they are in a file,
// [seal.Keys.Reload] reads it again.
func (c *Config) Keys() (*seal.Keys, error) {
	source := func() (string, error) { return c.ZoneKEK.Reveal(), nil }
	if c.zoneKEKFile != "" {
		source = func() (string, error) { return ReadSettingFile(c.zoneKEKFile) }
	}
	keys, err := seal.Load(source)
	if err != nil {
		return nil, ConfigErrors{{"ZONE_KEK", err.Error()}}
	}
	return keys, nil
}

// withFiles returns the environment as a map, in which each setting NAME has the
// content of the file NAME_FILE if only the latter is set. An empty variable counts
// as unset. It adds the errors of files that it cannot use.
func withFiles(environ []string, invalid *ConfigErrors) map[string]string {
	values := map[string]string{}
	for _, pair := range environ {
		name, value, _ := strings.Cut(pair, "=")
		values[name] = value
	}
	for name, value := range values {
		if value == "" {
			delete(values, name)
		}
	}
	for field := range settings() {
		name := field.Tag.Get("env")
		file := values[name+"_FILE"]
		if file == "" {
			continue
		}
		if values[name] != "" {
			delete(values, name+"_FILE")
			continue
		}
		text, err := ReadSettingFile(file)
		if err != nil {
			invalid.add(name+"_FILE", "%w", err)
			continue
		}
		values[name] = strings.TrimRight(text, " \t\r\n")
		if values[name] == "" {
			invalid.add(name+"_FILE", "the file is empty")
		}
	}
	return values
}

// ReadSettingFile returns the content of the file with the value of a setting. Its error
// does not contain the path, which can be a secret that was given in place of a path.
func ReadSettingFile(path string) (string, error) {
	text, err := os.ReadFile(path)
	var withPath *fs.PathError
	if errors.As(err, &withPath) {
		err = fmt.Errorf("cannot read the file: %w", withPath.Err)
	}
	return string(text), err
}

// settings returns an iterator over the fields of Config that are settings.
func settings() func(yield func(reflect.StructField) bool) {
	return func(yield func(reflect.StructField) bool) {
		for _, field := range reflect.VisibleFields(reflect.TypeFor[Config]()) {
			if field.Tag.Get("env") != "" && !yield(field) {
				return
			}
		}
	}
}

// SettingsHelp returns the settings that satisfy used, as text for a terminal.
func SettingsHelp(used func(setting string) bool) string {
	var b strings.Builder
	for field := range settings() {
		name, value := field.Tag.Get("env"), field.Tag.Get("default")
		if !used(name) {
			continue
		}
		if value != "" {
			value = " (default " + value + ")"
		}
		fmt.Fprintf(&b, "  %s\n        %s%s\n", name, field.Tag.Get("help"), value)
	}
	return b.String()
}

// SettingsTable returns the settings as a Markdown table, for the guides.
func SettingsTable() string {
	var b strings.Builder
	b.WriteString("| setting | default | description |\n| --- | --- | --- |\n")
	for field := range settings() {
		defaultValue := field.Tag.Get("default")
		if defaultValue != "" {
			defaultValue = "`" + defaultValue + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", field.Tag.Get("env"), defaultValue, field.Tag.Get("help"))
	}
	return b.String()
}

func parseBool(text string) (any, error) {
	switch strings.ToLower(text) {
	case "1", "true", "yes", "on":
		return true, nil
	case "0", "false", "no", "off":
		return false, nil
	}
	return nil, errors.New("must be true or false")
}

// validate checks the settings, sets the defaults that depend on others, and adds all
// errors.
func (c *Config) validate(invalid *ConfigErrors) {
	add := invalid.add
	for field := range settings() {
		minimum := field.Tag.Get("min")
		if minimum == "" {
			continue
		}
		bound, _ := strconv.ParseInt(minimum, 10, 64)
		if v := reflect.ValueOf(*c).FieldByIndex(field.Index).Int(); v < bound {
			add(field.Tag.Get("env"), "must be at least %d, not %d", bound, v)
		}
	}
	c.Mode = strings.ToLower(strings.TrimSpace(c.Mode))
	switch c.Mode {
	case "dev":
	case "rc", "stable":
		if c.StreamsHMACKey.IsZero() {
			add("STREAMS_HMAC_KEY", "must be set in mode %s", c.Mode)
		}
	default:
		add("CARACAL_MODE", "must be dev, rc or stable, not %q", c.Mode)
	}
	if c.DatabaseURL.IsZero() {
		add("DATABASE_URL", "must be set")
	}
	if c.RedisURL.IsZero() {
		add("REDIS_URL", "must be set")
	} else if err := redisconn.CheckURL(c.RedisURL.Reveal()); err != nil {
		add("REDIS_URL", "%w", err)
	}
	if _, err := c.Keys(); c.ZoneKEK.IsZero() {
		add("ZONE_KEK", "must be set")
	} else if err != nil {
		*invalid = append(*invalid, err.(ConfigErrors)...)
	}
	if header := c.ProxyHeader; !strings.EqualFold(header, "X-Forwarded-For") && !strings.EqualFold(header, "Forwarded") {
		add("TRUST_PROXY_HEADER", "must be X-Forwarded-For or Forwarded, not %q", header)
	}
	if _, err := hmacKey(c.StreamsHMACKey); err != nil {
		add("STREAMS_HMAC_KEY", "%w", err)
	}
	if _, err := hmacKey(c.AuditHMACKey); err != nil {
		add("AUDIT_HMAC_KEY", "%w", err)
	}
	if _, err := hmacKey(c.GatewaySTSKey); err != nil {
		add("GATEWAY_STS_HMAC_KEY", "%w", err)
	}
	if err := sts.CheckURL(c.STSURL); err != nil {
		add("STS_URL", "%w", err)
	}
	for name, value := range map[string]string{"STS_ISSUER_URL": c.STSIssuerURL, "STS_JWKS_URL": c.STSJWKSURL} {
		if err := sts.CheckURL(value); value != "" && err != nil {
			add(name, "%w", err)
		}
	}
	if c.STSJWKSURL != "" && c.STSIssuerURL == "" {
		add("STS_JWKS_URL", "requires STS_ISSUER_URL")
	}
	if !slices.Contains([]string{"debug", "info", "warn", "error"}, strings.ToLower(c.LogLevel)) {
		add("LOG_LEVEL", "must be debug, info, warn or error, not %q", c.LogLevel)
	}
	if c.Host == "" && c.Mode == "dev" {
		c.Host = "127.0.0.1"
	}
	if c.Docs == nil {
		c.Docs = new(c.Mode == "dev")
	}
	if c.WorkerID == "" {
		host, err := os.Hostname()
		if err != nil {
			host = "api"
		}
		c.WorkerID = fmt.Sprintf("%s:%d", host, os.Getpid())
	}
}

// hmacKey returns the key in a setting, or nil if it is not set.
func hmacKey(setting secret.String) ([]byte, error) {
	const minimum = 32
	if setting.IsZero() {
		return nil, nil
	}
	key, err := hex.DecodeString(setting.Reveal())
	if err != nil {
		return nil, errors.New("must be hexadecimal")
	}
	if len(key) < minimum {
		return nil, fmt.Errorf("must have at least %d bytes, not %d", minimum, len(key))
	}
	return key, nil
}
