package server_test

import (
	"bufio"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"golang.org/x/crypto/chacha20poly1305"

	"caracal.run/management/server/servertest"
	"caracal.run/management/store/storetest"
)

// A watched service is one of which all is kept that leaves it.
type watched struct {
	walker
	t       *testing.T
	admin   string
	ids     map[string]string // collection -> one of the zone's
	planted int
	brief   bool              // without what Postgres never hears of
	secrets map[string][]byte // name -> secret that does not hold the stem

	mu       sync.Mutex
	answers  strings.Builder
	met      map[string]bool // operation and status
	large    map[string]bool
	requests int

	output                        processOutput
	postgres, upstream, monitored *servertest.Log
}

const metricsBearer = "metrics-" + stem

// processOutput is what leaves the process by other ways than a service's own
// connections: traces, and what is printed with package log.
type processOutput struct{ traces, printed *servertest.Log }

// captureProcess captures the output of the process for the rest of the test. The
// test must not be parallel, because it sets the environment; its subtests may be.
func captureProcess(t *testing.T) processOutput {
	t.Helper()
	p := processOutput{&servertest.Log{}, &servertest.Log{}}
	before := log.Writer()
	log.SetOutput(p.printed) // net/http and others print to it by default
	t.Cleanup(func() { log.SetOutput(before) })
	collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_ = r.Header.Write(p.traces)
		_, _ = io.Copy(p.traces, r.Body)
	}))
	t.Cleanup(collector.Close)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.URL)
	return p
}

func watch(t *testing.T, output processOutput, settings ...string) *watched {
	w := &watched{
		t: t, output: output, admin: "admin-" + stem, secrets: map[string][]byte{}, met: map[string]bool{}, large: map[string]bool{},
		postgres: &servertest.Log{}, upstream: &servertest.Log{}, monitored: &servertest.Log{},
	}
	db, redisURL := storetest.New(t), storetest.RedisURL(t)
	w.walker.API = servertest.NewReplica(t, db, strings.Replace(redisURL, "unix://", "unix://default:redis-"+stem+"@", 1),
		append([]string{"DATABASE_URL=" + tapped(t, db.URL(), w.postgres), "CARACAL_ADMIN_TOKEN=" + w.admin, "ZONE_KEK=" + asKey(1), "STREAMS_HMAC_KEY=" + asKey(2),
			"METRICS_BEARER=" + metricsBearer, "API_BODY_LIMIT_BYTES=65536", "LOG_LEVEL=debug",
			"API_V1_RATE_LIMIT_PER_MIN=1000000", "READY_RATE_LIMIT_PER_MIN=1000000", "ADMIN_AUTH_FAIL_LIMIT_PER_MIN=1000000"}, settings...)...)
	w.planted += 6
	for _, label := range []string{"caracal:console:read-only:v1", "caracal:console:write:v1"} {
		mac := hmac.New(sha256.New, []byte(w.admin))
		mac.Write([]byte(label))
		w.secrets["the derived token "+label] = []byte("cat_" + base64.RawURLEncoding.EncodeToString(mac.Sum(nil)))
	}
	w.API.Admin = w.ClientWithToken(w.admin)
	monitor(t, w)
	w.furnish()
	return w
}

// tapped is the URL of a Postgres that keeps what it is told. It has a password
// that Postgres does not ask for.
func tapped(t *testing.T, databaseURL string, heard io.Writer) string {
	t.Helper()
	config, err := pgx.ParseConfig(databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	network, address := pgconnAddress(config)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer client.Close()
				postgres, err := net.Dial(network, address)
				if err != nil {
					return
				}
				defer postgres.Close()
				go func() {
					_, _ = io.Copy(client, postgres)
					_ = client.Close()
				}()
				_, _ = io.Copy(io.MultiWriter(postgres, heard), client)
			}()
		}
	}()
	return fmt.Sprintf("postgres://%s:database-%s@%s/%s?sslmode=disable", config.User, stem, listener.Addr(), config.Database)
}

func pgconnAddress(c *pgx.ConnConfig) (network, address string) {
	if strings.HasPrefix(c.Host, "/") {
		return "unix", fmt.Sprintf("%s/.s.PGSQL.%d", c.Host, c.Port)
	}
	return "tcp", net.JoinHostPort(c.Host, fmt.Sprint(c.Port))
}

// monitor keeps every command that Redis gets.
func monitor(t *testing.T, w *watched) {
	t.Helper()
	options := w.Redis.Options()
	conn, err := net.Dial(options.Network, options.Addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if _, err := conn.Write([]byte("MONITOR\r\n")); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReaderSize(io.TeeReader(conn, w.monitored), 16).ReadString('\n'); err != nil || line != "+OK\r\n" {
		t.Fatalf("Redis answered %q, %v", line, err)
	}
	go func() { _, _ = io.Copy(w.monitored, conn) }()
}

// furnish makes one of everything, with secrets where there are any.
func (w *watched) furnish() {
	w.t.Helper()
	w.zone = w.Zone()
	w.want(http.StatusOK, "PATCH", "/v1/zones/"+w.zone.ID, `{"dcr_enabled":true}`)
	made := func(collection, body string) string {
		return decode[struct{ ID string }](w.t, w.want(http.StatusCreated, "POST", "/v1/zones/"+w.zone.ID+"/"+collection, body)).ID
	}
	w.ids = map[string]string{
		"applications": made("applications", `{"name":"Billing","registration_method":"managed"}`),
		"providers":    made("providers", `{"name":"Ledger","kind":"api_key","config_json":{"header_name":"X-Key","api_key":"`+w.secret()+`"}}`),
		"dead-letters": w.DB.DeadLetter(w.zone.ID),
	}
	w.ids["resources"] = made("resources", fmt.Sprintf(`{"name":"Invoices","scopes":["a"],"upstream_url":"https://up.example.com","credential_provider_id":%q,"gateway_application_id":%q}`,
		w.ids["providers"], w.ids["applications"]))
	w.DB.ApplicationSession(w.zone.ID, w.ids["applications"])
	minted := w.want(http.StatusCreated, "POST", "/v1/admin-tokens", `{"name":"other","scope":"global","capability":"write"}`)
	token := decode[struct{ ID, Token string }](w.t, minted)
	w.ids["admin-tokens"] = token.ID
	w.send("GET", "/v1/zones", "", bearer(token.Token)...)
}

// secret makes up a secret.
func (w *watched) secret() string {
	w.planted++
	return madeUp(w.planted)
}

// send keeps all that is answered, but for the one sight of a secret that the
// service has made.
func (w *watched) send(method, path, body string, headers ...string) servertest.RawResponse {
	w.t.Helper()
	raw := w.Do(method, path, body, headers...)
	text := string(raw.Body)
	if raw.Response.StatusCode == http.StatusCreated {
		shown := decode[struct {
			Secret string `json:"client_secret"`
			Token  string `json:"token"`
		}](w.t, raw)
		for _, secret := range []string{shown.Secret, shown.Token} {
			if secret != "" {
				w.secrets[fmt.Sprintf("the secret that %s %s made, no. %d", method, path, len(w.secrets))] = []byte(secret)
				text = strings.Replace(text, secret, "[its only sight]", 1)
			}
		}
	}
	header := raw.Header.Clone()
	if link := header.Get("Link"); link != "" { // it keeps what its own caller has asked for (contract: conventions.md §7)
		for name, values := range raw.Request.URL.Query() {
			link = strings.ReplaceAll(link, url.Values{name: values}.Encode(), name+"=[its own]")
		}
		header.Set("Link", link)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.requests++
	const large = 100 << 10 // the spec itself, which is always the same
	if len(text) > large && w.large[text] {
		text = "[again]"
	}
	if len(text) > large {
		w.large[text] = true
	}
	fmt.Fprintf(&w.answers, "%d %v\n%s\n", raw.Response.StatusCode, header, text)
	return raw
}

func (w *watched) want(status int, method, path, body string) servertest.RawResponse {
	w.t.Helper()
	raw := w.send(method, path, body, append(bearer(w.admin), "Content-Type", jsonType)...)
	servertest.Expect(w.t, raw, status, "")
	return raw
}

// everywhere is where a secret may have got to by now.
func (w *watched) everywhere() []place {
	w.t.Helper()
	metrics := w.send("GET", "/metrics", "", bearer(metricsBearer)...)
	servertest.Expect(w.t, metrics, http.StatusOK, "")
	if err := w.Service.Stop(); err != nil { // writes the last refusals and sends the last spans
		w.t.Error(err)
	}
	places := []place{
		{"the log", w.Log.String()}, {"an answer", w.answers.String()}, {"the metrics", string(metrics.Body)},
		{"what Postgres was told", w.postgres.String()}, {"what Redis was told", w.monitored.String()}, {"the traces", w.output.traces.String()},
		{"what a token endpoint was told", w.upstream.String()}, {"what was printed", w.output.printed.String()},
	}
	for _, key := range w.Redis.Keys(w.t.Context(), "*").Val() {
		var held any
		var err error
		switch kind := w.Redis.Type(w.t.Context(), key).Val(); kind {
		case "stream":
			held, err = w.Redis.XRange(w.t.Context(), key, "-", "+").Result()
		case "string":
			held, err = w.Redis.Get(w.t.Context(), key).Result()
		case "hash":
			held, err = w.Redis.HGetAll(w.t.Context(), key).Result()
		case "none": // it expired
		default:
			w.t.Fatalf("read what Redis holds as a %s", kind)
		}
		if err != nil && w.Redis.Exists(w.t.Context(), key).Val() > 0 {
			w.t.Fatal(err)
		}
		places = append(places, place{"the " + key + " of Redis", fmt.Sprintf("%s %v", key, held)})
	}
	for _, table := range storetest.Column[string](w.DB, "SELECT tablename::text FROM pg_tables WHERE schemaname = 'public' ORDER BY 1") {
		rows := storetest.Column[string](w.DB, "SELECT to_jsonb(t)::text FROM "+table+" AS t")
		places = append(places, place{"the table " + table, strings.Join(rows, "\n")})
	}
	return places
}

// dataKeys adds the keys that the zones' secrets are sealed with. They never
// leave the service but wrapped, so they are unwrapped here, by hand.
func (w *watched) dataKeys() {
	w.t.Helper()
	kek, _ := hex.DecodeString(asKey(1))
	aead, err := chacha20poly1305.NewX(kek)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, row := range storetest.Column[string](w.DB, "SELECT zone_id || ' ' || number || ' ' || wrapped_by || ' ' || encode(wrapped, 'hex') FROM data_keys") {
		parts := strings.Fields(row)
		wrapped, _ := hex.DecodeString(parts[3])
		var associated []byte
		for _, part := range append([]string{"data key"}, parts[:3]...) {
			associated = append(binary.BigEndian.AppendUint32(associated, uint32(len(part))), part...)
		}
		key, err := aead.Open(nil, wrapped[1:1+aead.NonceSize()], wrapped[1+aead.NonceSize():], associated)
		if err != nil {
			w.t.Fatalf("data key of zone %s: %v", parts[0], err)
		}
		w.secrets["the data key of zone "+parts[0]] = key
	}
}
