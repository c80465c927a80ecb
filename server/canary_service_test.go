package server_test

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
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

// A watched service is one whose whole output is recorded.
type watched struct {
	walker
	t       *testing.T
	admin   string
	ids     map[string]string // collection -> ID of an object in the zone
	sent    int
	brief   bool              // without the requests that never reach Postgres
	secrets map[string][]byte // name -> secret that does not contain the stem

	mu        sync.Mutex
	responses strings.Builder
	met       map[string]bool // operations and statuses seen
	large     map[string]bool
	requests  int

	output                             processOutput
	postgres, upstream, sts, monitored *servertest.Log
}

const metricsBearer = "metrics-" + stem

// A processOutput records what leaves the process other than through the service's
// connections and log: traces, and what is printed with package log.
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

// watch starts a service whose secrets all contain the stem, and creates an object
// of each collection.
func watch(t *testing.T, output processOutput, settings ...string) *watched {
	w := &watched{
		t: t, output: output, admin: "admin-" + stem, secrets: map[string][]byte{}, met: map[string]bool{}, large: map[string]bool{},
		postgres: &servertest.Log{}, upstream: &servertest.Log{}, sts: &servertest.Log{}, monitored: &servertest.Log{},
	}
	sts := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		_ = r.Write(w.sts)
		_, _ = io.WriteString(rw, `{"loaded":false}`)
	}))
	t.Cleanup(sts.Close)
	db, redisURL := storetest.New(t), storetest.RedisURL(t)
	w.walker.API = servertest.NewReplica(t, db, strings.Replace(redisURL, "unix://", "unix://default:redis-"+stem+"@", 1),
		append([]string{"DATABASE_URL=" + tapped(t, db.URL(), w.postgres), "CARACAL_ADMIN_TOKEN=" + w.admin, "ZONE_KEK=" + asKey(1), "STREAMS_HMAC_KEY=" + asKey(2), "AUDIT_HMAC_KEY=" + asKey(4),
			"METRICS_BEARER=" + metricsBearer, "GATEWAY_STS_HMAC_KEY=" + asKey(3), "STS_URL=" + sts.URL, "API_BODY_LIMIT_BYTES=65536", "LOG_LEVEL=debug",
			"API_V1_RATE_LIMIT_PER_MIN=1000000", "READY_RATE_LIMIT_PER_MIN=1000000", "ADMIN_AUTH_FAIL_LIMIT_PER_MIN=1000000"}, settings...)...)
	w.sent += 7
	for _, label := range []string{"caracal:console:read-only:v1", "caracal:console:write:v1"} {
		mac := hmac.New(sha256.New, []byte(w.admin))
		mac.Write([]byte(label))
		w.secrets["the derived token "+label] = []byte("cat_" + base64.RawURLEncoding.EncodeToString(mac.Sum(nil)))
	}
	w.API.Admin = w.ClientWithToken(w.admin)
	monitor(t, w)
	w.populate()
	return w
}

// tapped starts a proxy that records what is sent to a database, and returns its URL
// with a password, which Postgres does not require.
func tapped(t *testing.T, databaseURL string, record io.Writer) string {
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
				_, _ = io.Copy(io.MultiWriter(postgres, record), client)
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

// monitor records every command that Redis receives.
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
		t.Fatalf("Redis replied %q, %v", line, err)
	}
	go func() { _, _ = io.Copy(w.monitored, conn) }()
}

// populate creates an object of each collection, with secrets where possible.
func (w *watched) populate() {
	w.t.Helper()
	w.zone = w.Zone()
	w.mustSend(http.StatusOK, "PATCH", "/v1/zones/"+w.zone.ID, `{"dcr_enabled":true,"open_registration":true}`)
	create := func(collection, body string) string {
		return decode[struct{ ID string }](w.t, w.mustSend(http.StatusCreated, "POST", "/v1/zones/"+w.zone.ID+"/"+collection, body)).ID
	}
	w.ids = map[string]string{
		"applications":        create("applications", `{"name":"Billing","registration_method":"managed"}`),
		"providers":           create("providers", `{"name":"Ledger","kind":"api_key","config_json":{"header_name":"X-Key","api_key":"`+w.secret()+`"}}`),
		"control-keys":        create("control-keys", `{"name":"Nightly","allowed_scopes":["control:app:read"]}`),
		"registration-tokens": create("registration-tokens", `{"name":"Clients"}`),
		"dead-letters":        w.DB.DeadLetter(w.zone.ID),
		"policy-templates":    "resource-grants",
	}
	w.ids["resources"] = create("resources", fmt.Sprintf(`{"name":"Invoices","scopes":["a","invoices:read"],"upstream_url":"https://up.example.com","credential_provider_id":%q,"gateway_application_id":%q}`,
		w.ids["providers"], w.ids["applications"]))
	w.ids["provider-grants/providers"] = create("providers", `{"name":"Login","kind":"oauth2_authorization_code","config_json":{`+codePublic+`,"client_secret":"`+w.secret()+`"}}`)
	w.ids["provider-grants/resources"] = create("resources", fmt.Sprintf(`{"name":"Receipts","scopes":["invoices:read"],"upstream_url":"https://up.example.com","credential_provider_id":%q,"gateway_application_id":%q}`,
		w.ids["provider-grants/providers"], w.ids["applications"]))
	w.ids["provider-grants"] = create("provider-grants", fmt.Sprintf(`{"user_id":"user-1","resource_id":%q,"provider_id":%q,"scopes":["invoices:read"],"access_token":%q,"refresh_token":%q}`,
		w.ids["provider-grants/resources"], w.ids["provider-grants/providers"], w.secret(), w.secret()))
	w.ids["grants"] = create("grants", fmt.Sprintf(`{"application_id":%q,"user_id":"user-7","resource_id":%q,"scopes":["a"]}`, w.ids["applications"], w.ids["resources"]))
	w.ids["policies"], w.ids["policies/versions"] = w.DB.Policy(w.zone.ID)
	w.ids["policy-sets"] = create("policy-sets", `{"name":"Payments"}`)
	w.ids["policy-sets/versions"] = create("policy-sets/"+w.ids["policy-sets"]+"/versions", `{"manifest":[{"policy_version_id":"`+w.ids["policies/versions"]+`"}]}`)
	registered := w.send("POST", "/v1/zones/"+w.zone.ID+"/register", `{"grant_types":["client_credentials"]}`, "Content-Type", jsonType)
	servertest.Expect(w.t, registered, http.StatusCreated, "")
	w.ids["register"] = decode[struct {
		ID string `json:"client_id"`
	}](w.t, registered).ID
	hash := sha256.Sum256([]byte(stem))
	w.secrets["the hash of the secret of a challenge"] = hash[:]
	w.ids["step-up-challenges"] = w.DB.MFAStepUpChallenge(w.zone.ID, w.DB.ApplicationSession(w.zone.ID, w.ids["applications"]), hash[:])
	w.ids["requests"] = "request-1"
	w.DB.AuditEvent(w.zone.ID, map[string]any{"request_id": "request-1", "decision": "deny", "metadata": map[string]any{"Token": w.secret(), "reason": []any{map[string]any{"cookie": w.secret()}}}})
	created := w.mustSend(http.StatusCreated, "POST", "/v1/admin-tokens", `{"name":"other","scope":"global","capability":"write"}`)
	token := decode[struct{ ID, Token string }](w.t, created)
	w.ids["admin-tokens"] = token.ID
	w.send("GET", "/v1/zones", "", bearer(token.Token)...)
}

// secret returns a new secret.
func (w *watched) secret() string {
	w.sent++
	return newSecret(w.sent)
}

// send sends a request and records the response, except for a secret that the service
// generated and may return once.
func (w *watched) send(method, path, body string, headers ...string) servertest.RawResponse {
	w.t.Helper()
	raw := w.Do(method, path, body, headers...)
	text := string(raw.Body)
	if raw.Response.StatusCode == http.StatusCreated && strings.HasPrefix(raw.Header.Get("Content-Type"), jsonType) {
		created := decode[struct {
			Secret string `json:"client_secret"`
			Token  string `json:"token"`
			Own    string `json:"registration_access_token"`
		}](w.t, raw)
		for _, secret := range []string{created.Secret, created.Token, created.Own} {
			if secret != "" {
				w.secrets[fmt.Sprintf("the secret that %s %s created, no. %d", method, path, len(w.secrets))] = []byte(secret)
				text = strings.Replace(text, secret, "[returned once]", 1)
			}
		}
	}
	header := raw.Header.Clone()
	if link := header.Get("Link"); link != "" { // it repeats the query of its own request
		for name, values := range raw.Request.URL.Query() {
			link = strings.ReplaceAll(link, url.Values{name: values}.Encode(), name+"=[sent]")
		}
		header.Set("Link", link)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.requests++
	const large = 100 << 10 // the spec, which is always the same
	if len(text) > large && w.large[text] {
		text = "[repeated]"
	}
	if len(text) > large {
		w.large[text] = true
	}
	fmt.Fprintf(&w.responses, "%d %v\n%s\n", raw.Response.StatusCode, header, text)
	return raw
}

// mustSend sends a request with the admin token and fails the test unless the
// response has the status.
func (w *watched) mustSend(status int, method, path, body string) servertest.RawResponse {
	w.t.Helper()
	raw := w.send(method, path, body, append(bearer(w.admin), "Content-Type", jsonType)...)
	servertest.Expect(w.t, raw, status, "")
	return raw
}

// everywhere stops the service and returns all places where a secret may be.
func (w *watched) everywhere() []place {
	w.t.Helper()
	metrics := w.send("GET", "/metrics", "", bearer(metricsBearer)...)
	servertest.Expect(w.t, metrics, http.StatusOK, "")
	if err := w.Service.Stop(); err != nil { // flushes the audit entries of denied requests and the last spans
		w.t.Error(err)
	}
	places := []place{
		{"the log", w.Log.String()}, {"a response", w.responses.String()}, {"the metrics", string(metrics.Body)},
		{"what was sent to Postgres", w.postgres.String()}, {"what was sent to Redis", w.monitored.String()}, {"the traces", w.output.traces.String()},
		{"what was sent to the token endpoint", w.upstream.String()}, {"what was sent to the STS", w.sts.String()}, {"what was printed", w.output.printed.String()},
	}
	for _, key := range w.Redis.Keys(w.t.Context(), "*").Val() {
		var stored any
		var err error
		switch kind := w.Redis.Type(w.t.Context(), key).Val(); kind {
		case "stream":
			stored, err = w.Redis.XRange(w.t.Context(), key, "-", "+").Result()
		case "string":
			stored, err = w.Redis.Get(w.t.Context(), key).Result()
		case "hash":
			stored, err = w.Redis.HGetAll(w.t.Context(), key).Result()
		case "none": // it expired
		default:
			w.t.Fatalf("cannot read a %s from Redis", kind)
		}
		if err != nil && w.Redis.Exists(w.t.Context(), key).Val() > 0 {
			w.t.Fatal(err)
		}
		places = append(places, place{"the " + key + " of Redis", fmt.Sprintf("%s %v", key, stored)})
	}
	// Audit events are stored as they are sent, because their chain is computed of that.
	for _, table := range storetest.Column[string](w.DB, "SELECT tablename::text FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'audit_events' ORDER BY 1") {
		rows := storetest.Column[string](w.DB, "SELECT (to_jsonb(t) - 'challenge_secret_hash')::text FROM "+table+" AS t") // that column is not encrypted
		places = append(places, place{"the table " + table, strings.Join(rows, "\n")})
	}
	return places
}

// dataKeys adds the zones' data keys, and the signing keys that they seal, to the secrets. They leave the service only
// wrapped, so this unwraps them.
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
		w.signingKeys(parts[0], key)
	}
}

// signingKeys adds the private signing keys that are sealed with the data key of a zone to
// the secrets.
func (w *watched) signingKeys(zone string, dataKey []byte) {
	w.t.Helper()
	aead, err := chacha20poly1305.NewX(dataKey)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, row := range storetest.Column[string](w.DB, "SELECT id || ' ' || data_key || ' ' || encode(private_key, 'hex') FROM signing_keys WHERE zone_id = $1", zone) {
		parts := strings.Fields(row)
		sealed, _ := hex.DecodeString(parts[2])
		var associated []byte
		for _, part := range []string{"secret", zone, parts[1], "signing_keys", "private_key", parts[0]} {
			associated = append(binary.BigEndian.AppendUint32(associated, uint32(len(part))), part...)
		}
		der, err := aead.Open(nil, sealed[1:1+aead.NonceSize()], sealed[1+aead.NonceSize():], associated)
		if err != nil {
			w.t.Fatalf("signing key %s: %v", parts[0], err)
		}
		key, err := x509.ParsePKCS8PrivateKey(der)
		if err != nil {
			w.t.Fatal(err)
		}
		private, err := key.(*ecdsa.PrivateKey).Bytes()
		if err != nil {
			w.t.Fatal(err)
		}
		w.secrets["the signing key "+parts[0]] = private
	}
}
