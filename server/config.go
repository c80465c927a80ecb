package server

import (
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/caarlos0/env/v11"

	"caracal.run/management/server/egress"
	"caracal.run/management/store/seal"
)

// Config is what can be set. Each setting is an environment variable; NAME_FILE
// names a file that holds it instead. The README's table is made from these
// tags.
type Config struct {
	Mode           string `env:"CARACAL_MODE" default:"stable" help:"dev, rc or stable; rc and stable insist on signed events, and keep /docs and /metrics closed unless told"`
	Host           string `env:"HOST" help:"address to serve on; 127.0.0.1 in dev mode, otherwise all"`
	Port           int    `env:"PORT" default:"3000" min:"0" help:"port to serve on; 0 takes a free one"`
	DatabaseURL    Secret `env:"DATABASE_URL" help:"Postgres, in the service's role (caracal_service); must be set"`
	RedisURL       Secret `env:"REDIS_URL" help:"Redis, for events and shared limits; must be set"`
	AdminToken     Secret `env:"CARACAL_ADMIN_TOKEN" help:"the bootstrap admin token, with which everything begins; the Console's tokens derive from it"`
	ZoneKEK        Secret `env:"ZONE_KEK" help:"wraps the keys that seal secrets: one or more keys of 32 bytes in hexadecimal; the first wraps, all unwrap; must be set"`
	StreamsHMACKey Secret `env:"STREAMS_HMAC_KEY" help:"signs events: hexadecimal, 32 bytes or more; must be set in rc and stable"`
	MetricsBearer  Secret `env:"METRICS_BEARER" help:"bearer token for /metrics; without it they are open in dev mode and closed otherwise"`
	Docs           *bool  `env:"API_DOCS" help:"serve /docs, where people read and try the API; true in dev mode, otherwise false"`
	LogLevel       string `env:"LOG_LEVEL" default:"info" help:"debug, info, warn or error"`
	WorkerID       string `env:"WORKER_ID" help:"what Postgres and the log call this process; <host>:<pid> unless said"`

	BodyLimit      int64        `env:"API_BODY_LIMIT_BYTES" default:"1048576" min:"1" help:"largest body that is read"`
	RequestTimeout milliseconds `env:"REQUEST_TIMEOUT_MS" default:"30000" min:"1" help:"how long a request may take to arrive"`
	KeepAlive      milliseconds `env:"KEEP_ALIVE_TIMEOUT_MS" default:"75000" min:"1" help:"how long an idle connection is kept"`
	DrainDelay     milliseconds `env:"DRAIN_DELAY_MS" default:"0" min:"0" help:"after SIGTERM, how long to go on serving while /ready says draining"`
	ShutdownGrace  milliseconds `env:"SHUTDOWN_GRACE_MS" default:"15000" min:"1" help:"how long stopping may take after that"`
	TrustProxy     bool         `env:"TRUST_PROXY" default:"false" help:"take the caller's address from the last hop of X-Forwarded-For"`

	PoolMax          int          `env:"DB_POOL_MAX" default:"20" min:"1" help:"Postgres connections at the most"`
	ConnectTimeout   milliseconds `env:"DB_CONNECTION_TIMEOUT_MS" default:"5000" min:"1" help:"how long connecting to Postgres may take"`
	IdleTimeout      milliseconds `env:"DB_IDLE_TIMEOUT_MS" default:"30000" min:"1" help:"after which an unused Postgres connection is closed"`
	StatementTimeout milliseconds `env:"DB_STATEMENT_TIMEOUT_MS" default:"15000" min:"1" help:"how long an SQL statement may take"`
	IdleInTxTimeout  milliseconds `env:"DB_IDLE_IN_TX_TIMEOUT_MS" default:"30000" min:"1" help:"how long a transaction may do nothing"`

	OutboxBatch       int          `env:"OUTBOX_BATCH_SIZE" default:"500" min:"1" help:"events that are sent to Redis together"`
	OutboxPoll        milliseconds `env:"OUTBOX_POLL_MS" default:"250" min:"1" help:"how often to look for events that nobody announced"`
	OutboxMaxAttempts int          `env:"OUTBOX_MAX_ATTEMPTS" default:"5" min:"1" help:"after how many refusals by Redis an event is dead"`
	OutboxStreamLen   int64        `env:"OUTBOX_STREAM_MAXLEN" default:"100000" min:"1" help:"about how many entries a stream keeps"`
	OutboxRetention   hours        `env:"OUTBOX_RETENTION_HOURS" default:"168" min:"1" help:"how long dispatched events stay in Postgres"`

	RequestsPerMinute     int     `env:"API_V1_RATE_LIMIT_PER_MIN" default:"600" min:"0" help:"requests a minute below /v1, for each address and for each token; 0 is no limit"`
	ReadyPerMinute        int     `env:"READY_RATE_LIMIT_PER_MIN" default:"120" min:"0" help:"requests a minute for /ready, for each address; 0 is no limit"`
	AuthFailuresPerMinute int     `env:"ADMIN_AUTH_FAIL_LIMIT_PER_MIN" default:"60" min:"0" help:"failed authentications a minute, for each address, before the answer is 429; 0 is no limit"`
	ControlAudience       string  `env:"CONTROL_AUDIENCE" default:"caracal-control" help:"identifier of the control resource, which only global callers see"`
	MaxResourcesPerZone   int     `env:"API_MAX_RESOURCES_PER_ZONE" default:"100000" min:"0" help:"live resources of a zone at the most; 0 is no limit"`
	LastUsedDebounce      seconds `env:"ADMIN_TOKEN_LAST_USED_DEBOUNCE_SEC" default:"60" min:"0" help:"how often at the most a token's last_used_at is written"`

	// Egress is how requests leave the house. It is no setting: only tests change it.
	Egress egress.Options `json:"-"`

	zoneKEKFile string // where ZONE_KEK came from, if it came from a file
}

// Format prints the settings with their secrets as [set]. They print themselves
// so already, but fmt does not ask them behind a pointer and with %s.
func (c Config) Format(f fmt.State, _ rune) {
	type settings Config
	_, _ = fmt.Fprintf(f, "%+v", settings(c))
}

type (
	milliseconds int64
	seconds      int64
	hours        int64
)

func (m milliseconds) duration() time.Duration { return time.Duration(m) * time.Millisecond }
func (s seconds) duration() time.Duration      { return time.Duration(s) * time.Second }
func (h hours) duration() time.Duration        { return time.Duration(h) * time.Hour }

// A Secret is a string that prints as [set], however it is printed, so that a
// logged Config leaks nothing.
type Secret string

// Format prints [set], or nothing.
func (s Secret) Format(f fmt.State, _ rune) {
	if s != "" {
		_, _ = f.Write([]byte("[set]"))
	}
}

// MarshalText keeps the secret out of JSON too.
func (s Secret) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%v", s), nil }

// ErrConfig is that the settings do not make sense.
var ErrConfig = errors.New("settings")

// LoadConfig reads the settings from an environment such as [os.Environ], and
// names the variable of each that is wrong.
func LoadConfig(environ []string) (Config, error) {
	values, err := withFiles(environ)
	if err != nil {
		return Config{}, err
	}
	c, err := env.ParseAsWithOptions[Config](env.Options{
		Environment: values, DefaultValueTagName: "default",
		FuncMap: map[reflect.Type]env.ParserFunc{reflect.TypeFor[bool](): parseBool},
	})
	if err != nil {
		return c, fmt.Errorf("%w: %w", ErrConfig, byVariable(err))
	}
	c.zoneKEKFile = values["ZONE_KEK_FILE"]
	err = c.validate() // sets defaults too: c is read after it
	return c, err
}

// Keys are the key-encryption keys that ZONE_KEK names. What is wrong with them
// is said here and now.
func (c *Config) Keys() (*seal.Keys, error) {
	source := func() (string, error) { return string(c.ZoneKEK), nil }
	if c.zoneKEKFile != "" {
		source = func() (string, error) {
			text, err := os.ReadFile(c.zoneKEKFile)
			return string(text), err
		}
	}
	keys, err := seal.Load(source)
	if err != nil {
		return nil, fmt.Errorf("%w: ZONE_KEK: %w", ErrConfig, err)
	}
	return keys, nil
}

// withFiles is the environment with each NAME_FILE read into NAME. What is
// empty is as good as unset.
func withFiles(environ []string) (map[string]string, error) {
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
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("%w: %s_FILE: %w", ErrConfig, name, err)
		}
		values[name] = strings.TrimRight(string(text), " \t\r\n")
		if values[name] == "" {
			return nil, fmt.Errorf("%w: %s_FILE: %s is empty", ErrConfig, name, file)
		}
	}
	return values, nil
}

// settings yields the fields of Config.
func settings() func(yield func(reflect.StructField) bool) {
	return func(yield func(reflect.StructField) bool) {
		for _, field := range reflect.VisibleFields(reflect.TypeFor[Config]()) {
			if field.Tag.Get("env") != "" && !yield(field) {
				return
			}
		}
	}
}

// SettingsTable is the settings as the README shows them.
func SettingsTable() string {
	var b strings.Builder
	b.WriteString("| setting | unless set | what it is |\n| --- | --- | --- |\n")
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
	return nil, errors.New("is neither true nor false")
}

// byVariable names the variables in errors that name only fields of Config.
func byVariable(err error) error {
	var all env.AggregateError
	if !errors.As(err, &all) {
		return err
	}
	var named []error
	for _, one := range all.Errors {
		var parse env.ParseError
		if errors.As(one, &parse) {
			if field, found := reflect.TypeFor[Config]().FieldByName(parse.Name); found {
				one = fmt.Errorf("%s: %w", field.Tag.Get("env"), parse.Err)
			}
		}
		named = append(named, one)
	}
	return errors.Join(named...)
}

func (c *Config) validate() error {
	var problems []error
	add := func(variable, format string, args ...any) {
		problems = append(problems, fmt.Errorf("%w: %s "+format, append([]any{ErrConfig, variable}, args...)...))
	}
	for field := range settings() {
		minimum := field.Tag.Get("min")
		if minimum == "" {
			continue
		}
		bound, _ := strconv.ParseInt(minimum, 10, 64)
		if v := reflect.ValueOf(*c).FieldByIndex(field.Index).Int(); v < bound {
			add(field.Tag.Get("env"), "is %d and must be %d or more", v, bound)
		}
	}
	c.Mode = strings.ToLower(strings.TrimSpace(c.Mode))
	switch c.Mode {
	case "dev":
	case "rc", "stable":
		if c.StreamsHMACKey == "" {
			add("STREAMS_HMAC_KEY", "must be set in mode %s", c.Mode)
		}
	default:
		add("CARACAL_MODE", "is %q and must be dev, rc or stable", c.Mode)
	}
	if c.DatabaseURL == "" {
		add("DATABASE_URL", "must be set")
	}
	if c.RedisURL == "" {
		add("REDIS_URL", "must be set")
	}
	if _, err := c.Keys(); c.ZoneKEK == "" {
		add("ZONE_KEK", "must be set")
	} else if err != nil {
		problems = append(problems, err)
	}
	if _, err := c.streamsKey(); err != nil {
		add("STREAMS_HMAC_KEY", "%w", err)
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
	return errors.Join(problems...)
}

// streamsKey is the key that signs events; nil signs none.
func (c *Config) streamsKey() ([]byte, error) {
	const minimum = 32
	if c.StreamsHMACKey == "" {
		return nil, nil
	}
	key, err := hex.DecodeString(string(c.StreamsHMACKey))
	if err != nil {
		return nil, errors.New("is not hexadecimal")
	}
	if len(key) < minimum {
		return nil, fmt.Errorf("has %d bytes and must have %d or more", len(key), minimum)
	}
	return key, nil
}
