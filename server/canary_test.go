package server_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/jackc/pgx/v5"
	"golang.org/x/crypto/chacha20poly1305"

	"caracal.run/management/server"
	"caracal.run/management/server/egress"
	"caracal.run/management/server/middleware"
	"caracal.run/management/server/provider"
	"caracal.run/management/server/servertest"
	"caracal.run/management/store"
	"caracal.run/management/store/seal"
	"caracal.run/management/store/storetest"
)

// The tests here plant secrets that can be told from everything else, do all
// that the service can do, and then look for them in everything that left the
// process and in everything that it stored.

// stem is in every secret that these tests make up. It has no character that an
// encoding would escape, so that one search finds it in JSON, in a URL and in
// text alike.
const stem = "kNry7Q2vXw9Lr4"

// madeUp is a secret that nobody else has.
func madeUp(n int) string { return fmt.Sprintf("x%03d-%s-z", n, stem) }

// asKey is 32 bytes that hold the stem, in hexadecimal.
func asKey(first byte) string {
	key := bytes.Repeat([]byte{first}, 32)
	copy(key[9:], stem)
	return hex.EncodeToString(key)
}

// forms are how a secret may look once somebody has printed or encoded it.
func forms(secret []byte) map[string]string {
	list := func(format, separator string) string {
		var all []string
		for _, b := range secret {
			all = append(all, fmt.Sprintf(format, b))
		}
		return strings.Join(all, separator)
	}
	all := map[string]string{
		"as it is": string(secret), "in lower case": strings.ToLower(string(secret)), "in upper case": strings.ToUpper(string(secret)), "in hex": list("%02x", ""), "in upper hex": list("%02X", ""), "in escapes": list(`\x%02x`, ""),
		"percent-encoded": list("%%%02X", ""), "as a list": list("%d", " "), "as a JSON list": list("%d", ","), "as a Go list": list("0x%x", ", "), "as octal escapes": list(`\%03o`, ""),
	}
	// What precedes it decides which base64 it has: three ways, and of each the
	// characters that depend on nothing else.
	for before := range 3 {
		padded := append(make([]byte, before), secret...)
		from, to := (before*8+5)/6, len(padded)*8/6
		all[fmt.Sprintf("in base64 (%d)", before)] = base64.RawStdEncoding.EncodeToString(padded)[from:to]
		all[fmt.Sprintf("in URL base64 (%d)", before)] = base64.RawURLEncoding.EncodeToString(padded)[from:to]
	}
	return all
}

// A place is where a secret may have got to.
type place struct{ name, text string }

// find says where secrets are, and in which form.
func find(secrets map[string][]byte, places []place) (found []string) {
	for name, secret := range secrets {
		for form, text := range forms(secret) {
			for _, p := range places {
				if i := strings.Index(p.text, text); i >= 0 {
					found = append(found, fmt.Sprintf("%s, %s, is in %s: …%q…", name, form, p.name, p.text[max(0, i-300):min(len(p.text), i+200)]))
				}
			}
		}
	}
	slices.Sort(found)
	return found
}

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

	postgres, collector, upstream, printed, monitored *servertest.Log
}

const metricsBearer = "metrics-" + stem

func watch(t *testing.T, settings ...string) *watched {
	w := &watched{
		t: t, admin: "admin-" + stem, secrets: map[string][]byte{}, met: map[string]bool{}, large: map[string]bool{},
		postgres: &servertest.Log{}, collector: &servertest.Log{}, upstream: &servertest.Log{}, printed: &servertest.Log{}, monitored: &servertest.Log{},
	}
	before := log.Writer()
	log.SetOutput(w.printed) // where net/http and others write who were not told where
	t.Cleanup(func() { log.SetOutput(before) })
	traces := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_ = r.Header.Write(w.collector)
		_, _ = io.Copy(w.collector, r.Body)
	}))
	t.Cleanup(traces.Close)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", traces.URL)

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
		{"what Postgres was told", w.postgres.String()}, {"what Redis was told", w.monitored.String()}, {"the traces", w.collector.String()},
		{"what a token endpoint was told", w.upstream.String()}, {"what was printed", w.printed.String()},
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

// A secretConfig is a provider's configuration with secrets in it.
type secretConfig struct{ kind, config string }

func (w *watched) secretConfigs() []secretConfig {
	const oauth = `"token_endpoint":"https://id.example.com/token","client_id":"me","allowed_token_hosts":["id.example.com"]`
	const people = oauth + `,"authorization_endpoint":"https://id.example.com/a","redirect_uri":"https://app.example.com/b"`
	pem := func() string {
		return `"-----BEGIN PRIVATE KEY-----\n` + w.secret() + `\n\u003c&\"-----END PRIVATE KEY-----\n"`
	}
	s := func() string { return `"` + w.secret() + `"` }
	return []secretConfig{
		{"api_key", `{"header_name":"X-Key","api_key":` + s() + `}`},
		{"api_key", `{"auth_location":"query","query_param_name":"key","api_key":` + s() + `}`},
		{"bearer_token", `{"bearer_token":` + s() + `}`},
		{"oauth2_client_credentials", `{` + oauth + `,"client_secret":` + s() + `}`},
		{"oauth2_client_credentials", `{` + oauth + `,"client_auth_method":"private_key_jwt","key_id":"1","private_key":` + pem() + `}`},
		{"oauth2_authorization_code", `{` + people + `,"client_secret":` + s() + `}`},
		// Refused: for what stands beside the secret, for where it stands, for what it is.
		{"api_key", `{"header_name":7,"api_key":` + s() + `}`},
		{"api_key", `{"header_name":"not a header","api_key":` + s() + `}`},
		{"api_key", `{"api_key":` + s() + `}`},
		{"api_key", `{"header_name":"X-Key","api_key":` + s() + `,"unheard_of":` + s() + `}`},
		{"api_key", `{"header_name":"X-Key","api_key":[` + s() + `]}`},
		{"api_key", `{"header_name":"X-Key","api_key":{"text":` + s() + `}}`},
		{"api_key", `{"header_name":"X-Key","api_key":` + s() + `,"api_key":7}`},
		{"api_key", `{"header_name":"X-Key","bearer_token":` + s() + `}`},
		{"api_key", `{"header_name":"X-Key","api_key":` + s() + `,"auth_scheme":"` + `b@d"}`},
		{"api_key", `{"header_name":"X-Key","api_key":` + s() + `,"allow_runtime_injection":"yes"}`},
		{"none", `{"api_key":` + s() + `,"client_secret":` + s() + `,"private_key":` + pem() + `,"bearer_token":` + s() + `}`},
		{"caracal_mandate", `{"bearer_token":` + s() + `}`},
		{"bearer_token", `{"bearer_token":` + s() + `,"allowed_token_hosts":["1.2.3.4:80"]}`},
		{"oauth2_client_credentials", `{"client_secret":` + s() + `}`},
		{"oauth2_client_credentials", `{` + oauth + `,"client_secret":` + s() + `,"private_key":` + pem() + `}`},
		{"oauth2_client_credentials", `{` + oauth + `,"client_auth_method":"private_key_jwt","client_secret":` + s() + `}`},
		{"oauth2_client_credentials", `{` + oauth + `,"client_auth_method":"none","private_key":` + pem() + `}`},
		{"oauth2_client_credentials", `{` + oauth + `,"client_secret":` + s() + `,"token_params":{"client_secret":` + s() + `}}`},
		{"oauth2_authorization_code", `{` + people + `,"client_auth_method":"private_key_jwt","private_key":` + pem() + `}`},
		{"oauth2_authorization_code", `{` + people + `,"client_secret":` + s() + `,"authorization_params":{"state":"x"}}`},
		{"unheard_of", `{"api_key":` + s() + `}`},
		{"api_key", s()},
		{"api_key", `[` + s() + `]`},
	}
}

// hides says whether an operation takes a secret or makes one.
func hides(op servertest.Operation) bool {
	return slices.Contains([]string{"createAdminToken", "createApplication", "registerApplication", "updateApplication", "createProvider"}, op.OperationID)
}

// plantedMembers are the secret members of request bodies that requests puts secrets
// into.
var plantedMembers = []string{"api_key", "bearer_token", "client_secret", "private_key"}

// A request is one way to call an operation.
type request struct {
	query, body string
	headers     []string
}

// requestsTo are all the ways in which an operation is called here.
func (w *watched) requestsTo(op servertest.Operation) (all []request) {
	known := strings.NewReplacer("0198c0de-0000-7000-8000-00000000000a", w.zone.ID, "0198c0de-0000-7000-8000-00000000000b", w.ids["applications"],
		"0198c0de-0000-7000-8000-00000000000c", w.ids["providers"], "https://invoices.example.com", "https://"+strings.ToLower(op.OperationID)+".example.com")
	with := append(bearer(w.admin), "Content-Type", jsonType)
	as := func(authorization string) []string {
		return []string{"Authorization", authorization, "Content-Type", jsonType}
	}
	right := "" // a body that is right
	if takesBody(op) {
		for _, text := range examples(w.t, op) {
			right = known.Replace(text)
			for _, example := range []string{"a-key-of-the-upstreams-making", "another-key-of-the-upstreams-making", "a-secret-of-the-issuers-making", "a-secret-of-your-own-making"} {
				right = strings.ReplaceAll(right, example, w.secret())
			}
			all = append(all, request{body: right, headers: with})
		}
		secret := w.secret()
		for _, wrong := range []string{
			secret, `{"client_secret":"` + secret, `{"client_secret":"` + secret + `"}}`, `{"client_secret":"` + secret + `",}`, `["` + secret + `"]`, `"` + secret + `"`, `{"client_secret":"` + secret + "\xff\"}",
			strings.TrimSuffix(right, "}") + `,"client_secret":7,"unheard_of":"` + secret + `"}`,
			strings.TrimSuffix(right, "}") + `,"password":{"is":["` + secret + `"]}}`,
			strings.TrimSuffix(right, "}") + `,"client_secret":"a\u0000` + secret + `"}`,
			`{"client_secret":"` + stem[:10] + `"}`, `{"client_secret":["` + secret + `"]}`, `{"client_secret":{"is":"` + secret + `"}}`, `{"client_secret":"` + strings.Repeat(secret, 60) + `"}`,
			`{"client_secret":"` + secret + `","name":7}`, `{"client_secret":"` + secret + `","name":""}`,
			`{"client_secret":"` + strings.Repeat(secret, 4000) + `"}`,
		} {
			all = append(all, request{body: wrong, headers: with})
		}
		all = append(all,
			request{body: "client_secret=" + w.secret(), headers: append(bearer(w.admin), "Content-Type", "application/x-www-form-urlencoded")},
			request{body: right, headers: append(bearer(w.admin), "Content-Type", "application/json; charset="+w.secret())},
			request{body: right, headers: append(with, "Content-Encoding", w.secret())})
	} else {
		with = bearer(w.admin)
		all = append(all, request{headers: with})
	}
	if collectionOf(op) == "providers" || strings.HasSuffix(op.Path, "/providers") {
		for _, c := range w.secretConfigs() {
			switch op.Method {
			case http.MethodPost:
				if takesBody(op) {
					all = append(all, request{body: `{"name":"Secretive","kind":"` + c.kind + `","config_json":` + c.config + `}`, headers: with})
				}
			case http.MethodPatch:
				all = append(all, request{body: `{"config_json":` + c.config + `}`, headers: with}, request{body: `{"kind":"` + c.kind + `","config_json":` + c.config + `}`, headers: with})
			}
		}
	}
	if w.brief {
		return append(all, request{"?token=" + w.secret(), right, with}, request{"", right, as("Bearer " + w.secret())})
	}
	return append(all,
		request{"?token=" + w.secret() + "&client_secret=" + w.secret(), right, with},
		request{"?limit=" + w.secret(), right, with},
		request{"?cursor=" + w.secret(), right, with},
		request{"?cursor=%zz" + w.secret(), right, with},
		request{"?limit=1&access_token=" + w.secret(), right, with},
		request{"", right, as("Bearer " + w.secret())},
		request{"", right, as("bearer " + w.admin)},
		request{"", right, as("Basic " + w.secret())},
		request{"", right, as("Bearer " + strings.Repeat(w.secret(), 300))},
		request{"", right, append(bearer(w.admin), "Authorization", "Bearer "+w.secret())},
		request{"", right, append(slices.Clone(with), "Cookie", "session="+w.secret(), "X-Api-Key", w.secret(), "traceparent", w.secret(), "tracestate", "a="+w.secret(), "baggage", "secret="+w.secret(),
			"X-Request-Id", "no id: "+w.secret(), "X-Forwarded-For", w.secret(), "Accept", w.secret(), "User-Agent", w.secret(), "Referer", "https://x.example.com/?token="+w.secret())},
		request{"", right, append(slices.Clone(with), "Accept", "application/problem+json", "If-Match", `"`+w.secret()+`"`)},
		request{"", right, append(slices.Clone(with), "If-Match", w.secret())})
}

// examples are an operation's requests as the spec shows them.
func examples(t *testing.T, op servertest.Operation) (all []string) {
	t.Helper()
	shown := op.RequestBody.Value.Content.Get(jsonType).Examples
	for _, name := range slices.Sorted(maps.Keys(shown)) {
		text, err := json.Marshal(shown[name].Value.Value)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, string(text))
	}
	return all
}

// lastEnds are all operations: those that end something after those that need
// it, and what is below a zone before the zone.
func lastEnds() []servertest.Operation {
	all := slices.Clone(servertest.Operations())
	slices.SortStableFunc(all, func(a, b servertest.Operation) int {
		ends := func(o servertest.Operation) int {
			if o.Method != http.MethodDelete {
				return 0
			}
			return 100 - strings.Count(o.Path, "/")
		}
		return ends(a) - ends(b)
	})
	return all
}

func (w *watched) everyOperation(only func(servertest.Operation) bool) {
	w.t.Helper()
	for _, op := range lastEnds() {
		if !only(op) {
			continue
		}
		path := w.path(op, w.ids[collectionOf(op)])
		if has(op, "path", "id") && w.ids[collectionOf(op)] == "" {
			w.t.Fatalf("furnish one of %s", collectionOf(op))
		}
		for _, r := range w.requestsTo(op) {
			raw := w.send(op.Method, path+r.query, r.body, r.headers...)
			w.met[fmt.Sprintf("%s %d", op.OperationID, raw.Response.StatusCode)] = true
		}
	}
}

// leave sends what ends before it is answered.
func (w *watched) leave() {
	w.t.Helper()
	address := strings.TrimPrefix(w.URL, "http://")
	providers := "/v1/zones/" + w.zone.ID + "/providers"
	for _, text := range []string{
		"POST " + providers + " HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + w.admin + "\r\nContent-Type: application/json\r\nContent-Length: 5000\r\n\r\n{\"config_json\":{\"api_key\":\"" + w.secret(),
		"POST " + providers + " HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + w.admin + "\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n" + w.secret() + "\r\n",
		"GET /v1/zones/%zz" + w.secret() + "?token=" + w.secret() + " HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET /v1/zones HTTP/1.1\r\nHost: x\r\nAuthorization : " + w.secret() + "\r\n\r\n",
		"GET /v1/zones HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + w.secret() + "\x00\r\n\r\n",
		"GET /v1/zones HTTP/1.1\r\nHost: x\r\nAuthorization: " + strings.Repeat(w.secret(), 2000) + "\r\n\r\n",
		"GET /v1/zones?a;b=" + w.secret() + " HTTP/9.1\r\n\r\n",
	} {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			w.t.Fatal(err)
		}
		_, _ = conn.Write([]byte(text))
		_ = conn.(*net.TCPConn).CloseWrite()
		answer, _ := io.ReadAll(conn) // it may be reset
		w.mu.Lock()
		w.answers.Write(answer)
		w.mu.Unlock()
		_ = conn.Close()
	}
	// And one whose caller leaves while Postgres works.
	conn, err := pgx.Connect(w.t.Context(), w.DB.OwnerURL())
	if err != nil {
		w.t.Fatal(err)
	}
	defer conn.Close(w.t.Context())
	if _, err := conn.Exec(w.t.Context(), "BEGIN; LOCK TABLE providers IN ACCESS EXCLUSIVE MODE"); err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(w.t.Context())
	body := `{"name":"Left","kind":"bearer_token","config_json":{"bearer_token":"` + w.secret() + `"}}`
	r, err := http.NewRequestWithContext(ctx, "POST", w.URL+providers, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+w.admin)
	r.Header.Set("Content-Type", jsonType)
	var asking sync.WaitGroup
	asking.Go(func() {
		if resp, err := http.DefaultClient.Do(r); err == nil {
			_ = resp.Body.Close()
			w.t.Errorf("it answered %d to a caller who had left", resp.StatusCode)
		}
	})
	eventually(w.t, "the request waits", func() bool {
		return storetest.Value[int](w.DB, "SELECT count(*) FROM pg_locks WHERE NOT granted") > 0
	})
	cancel()
	asking.Wait()
	eventually(w.t, "its end is logged", func() bool { return strings.Contains(w.Log.String(), `"status":499`) })
}

// expectNothing fails if a secret is anywhere.
func (w *watched) expectNothing() {
	w.t.Helper()
	places := w.everywhere()
	w.dataKeys()
	w.secrets["a made-up secret"] = []byte(stem)
	for _, found := range find(w.secrets, places) {
		w.t.Error(found)
	}
	operations, sizes := map[string]bool{}, []string{}
	for one := range w.met {
		operations[strings.Fields(one)[0]] = true
	}
	for _, p := range places {
		sizes = append(sizes, fmt.Sprintf("%s (%d)", p.name, len(p.text)))
	}
	w.t.Logf("%d secrets made up and %d of the service's own, in %d forms; %d requests to %d operations, %d ways to end; searched: %s",
		w.planted, len(w.secrets)-1, len(forms([]byte(stem))), w.requests, len(operations), len(w.met), strings.Join(sizes, ", "))
}

// onEveryTable has every write to every table fail.
func onEveryTable(db *storetest.DB, raise string) {
	db.Exec("CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN " + raise + "; END $$")
	for _, table := range storetest.Column[string](db, "SELECT tablename::text FROM pg_tables WHERE schemaname = 'public'") {
		db.Exec("CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON " + table + " FOR EACH ROW EXECUTE FUNCTION refuse()")
	}
}

const quotingTheRow = `RAISE EXCEPTION 'refused: %', NEW USING DETAIL = to_jsonb(NEW)::text, HINT = NEW::text`

func TestNoSecretLeavesTheProcess(t *testing.T) { // not parallel: it sets the environment
	for _, tt := range []struct {
		name          string
		breaks, mends func(*watched)
		only          func(servertest.Operation) bool // nil is all
		settings      []string
	}{
		{"nothing fails", nil, nil, nil, nil},
		{"Redis is away", nil, nil, writes, []string{"REDIS_URL=redis://:redis-" + stem + "@127.0.0.1:1"}},
		{"callers leave", (*watched).leave, nil, public, nil},
		{"Postgres quotes the row that it refuses", func(w *watched) { onEveryTable(w.DB, quotingTheRow) }, nil, writes, nil},
		{"statements take too long", func(w *watched) {
			w.DB.Exec("CREATE FUNCTION take_long() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(60); END $$")
			w.DB.Exec("CREATE TRIGGER take_long BEFORE INSERT ON providers FOR EACH ROW EXECUTE FUNCTION take_long()")
		}, nil, func(op servertest.Operation) bool { return op.OperationID == "createProvider" }, []string{"DB_STATEMENT_TIMEOUT_MS=200"}},
		{"transactions meet deadlocks", func(w *watched) { onEveryTable(w.DB, quotingTheRow+", ERRCODE = '40P01'") }, nil, hides, nil},
		{"columns are gone", func(w *watched) {
			w.DB.Exec("ALTER TABLE providers RENAME secret_config TO gone")
			w.DB.Exec("ALTER TABLE applications RENAME client_secret_hash TO gone")
			w.DB.Exec("ALTER TABLE data_keys RENAME wrapped TO gone")
			w.DB.Exec("ALTER TABLE resources RENAME operations TO gone")
		}, func(w *watched) { w.DB.Exec("ALTER TABLE data_keys RENAME gone TO wrapped") }, nil, nil},
		{"columns have other types", func(w *watched) {
			for _, table := range []string{"applications", "providers", "resources"} {
				w.DB.Exec("ALTER TABLE " + table + " ALTER version TYPE text")
			}
		}, nil, nil, nil},
		{"nobody is recognised any more", func(w *watched) { w.DB.Exec("ALTER TABLE admin_tokens RENAME token_sha256 TO gone") }, nil, nil, nil},
		{"nothing can be recorded", func(w *watched) { w.DB.Exec("REVOKE INSERT ON audit_entries, outbox FROM caracal_service") }, nil, nil, nil},
		{"what is sealed does not open", func(w *watched) { w.DB.Exec(`UPDATE data_keys SET wrapped = '\x00'`) }, func(w *watched) {
			w.DB.Exec("DELETE FROM provider_grants; UPDATE providers SET secret_config = NULL, data_key = NULL, secret_config_keys = '{}'; DELETE FROM data_keys")
		}, takesBody, nil},
		{"Postgres is away", func(w *watched) { w.DB.Away() }, func(w *watched) { w.DB.Back() }, nil, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := watch(t, tt.settings...)
			w.brief = tt.name != "nothing fails"
			if tt.breaks != nil {
				tt.breaks(w)
			}
			only := tt.only
			if only == nil {
				only = func(servertest.Operation) bool { return true }
			}
			w.everyOperation(only)
			if tt.mends != nil {
				tt.mends(w)
			}
			w.expectNothing()
		})
	}
}

// Whoever adds a secret member to a request plants one here too.
func TestASecretIsPlantedInEverySecretMember(t *testing.T) {
	t.Parallel()
	secretive := regexp.MustCompile(`(^|_)(secret|password|passphrase|private_key|credential)$`)
	var members []string
	var look func(*openapi3.SchemaRef)
	look = func(s *openapi3.SchemaRef) {
		if s == nil || s.Value == nil {
			return
		}
		for name, member := range s.Value.Properties {
			if member.Value.WriteOnly || secretive.MatchString(name) {
				members = append(members, name)
			}
			look(member)
		}
		look(s.Value.Items)
		for _, part := range slices.Concat(s.Value.AllOf, s.Value.AnyOf, s.Value.OneOf) {
			look(part)
		}
	}
	mapSlice(t, takesBody, func(_ *testing.T, op servertest.Operation) {
		look(op.RequestBody.Value.Content.Get(jsonType).Schema)
	})
	slices.Sort(members)
	if members = slices.Compact(members); !slices.Equal(members, plantedMembers) {
		t.Errorf("secret members are %v, and secrets are planted in %v", members, plantedMembers)
	}
}

// A resolver answers with a public address, or does not answer.
type resolver func(context.Context) []netip.Addr

func (r resolver) LookupNetIP(ctx context.Context, _, _ string) ([]netip.Addr, error) {
	return r(ctx), nil
}

// Others hear nothing of a provider's secrets when its token endpoint is tried,
// and a panic shows nobody what the request was.
func TestNoSecretLeavesWithATestOfAProvider(t *testing.T) { // not parallel: see watch
	w := watch(t)
	upstream := httptest.NewTLSServer(http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w.upstream, "%s %s\n", r.Method, r.RequestURI)
		_ = r.Header.Write(w.upstream)
		_, _ = io.Copy(w.upstream, r.Body)
		// It may know the secret, and say so.
		out.Header().Set("Location", "https://id.example.com/?secret="+stem)
		out.Header().Set("Set-Cookie", "secret="+stem)
		http.Error(out, stem, http.StatusUnauthorized)
	}))
	t.Cleanup(upstream.Close)
	roots := x509.NewCertPool()
	roots.AddCert(upstream.Certificate())
	there := func(context.Context) []netip.Addr { return []netip.Addr{netip.MustParseAddr("93.184.215.14")} }
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", upstream.Listener.Addr().String())
	}
	config := `{"token_endpoint":"https://example.com/token","client_id":"me","allowed_token_hosts":["example.com"],"client_secret":"` + w.secret() + `"}`
	provider := decode[struct{ ID string }](t, w.want(http.StatusCreated, "POST", "/v1/zones/"+w.zone.ID+"/providers", `{"name":"Tried","kind":"oauth2_client_credentials","config_json":`+config+`}`))
	for _, tt := range []struct {
		name   string
		egress egress.Options
		want   int
	}{
		{"it answers", egress.Options{Resolver: resolver(there), RootCAs: roots, Dial: dial}, http.StatusOK},
		{"its answer is too large", egress.Options{Resolver: resolver(there), RootCAs: roots, Dial: dial, MaxBody: 1}, http.StatusOK},
		{"its certificate is nobody's", egress.Options{Resolver: resolver(there), Dial: dial}, http.StatusOK},
		{"it is not there", egress.Options{Resolver: resolver(func(context.Context) []netip.Addr { return nil })}, http.StatusOK},
		{"a panic", egress.Options{Resolver: resolver(func(ctx context.Context) []netip.Addr {
			panic(fmt.Sprintf("%v %+v", ctx, middleware.RequestInfoFrom(ctx)))
		})}, http.StatusInternalServerError},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := w.Config
			c.Egress = tt.egress
			replica, err := server.Start(t.Context(), c, slog.New(slog.NewJSONHandler(w.Log, &slog.HandlerOptions{Level: slog.LevelDebug})))
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := replica.Stop(); err != nil {
					t.Error(err)
				}
			}()
			beside := *w.API
			beside.URL = replica.URL
			mine := w.API
			w.API = &beside
			defer func() { w.API = mine }()
			raw := w.send("POST", "/v1/zones/"+w.zone.ID+"/providers/"+provider.ID+"/test", "", append(bearer(w.admin), "Cookie", "session="+w.secret())...)
			if raw.Response.StatusCode != tt.want {
				t.Errorf("answered %d, want %d", raw.Response.StatusCode, tt.want)
			}
		})
	}
	if w.upstream.String() == "" {
		t.Error("the token endpoint was never tried")
	}
	if !strings.Contains(w.Log.String(), "panic: ") {
		t.Error("nothing panicked")
	}
	w.expectNothing()
}

// The search finds what is there, wherever and in whichever form it is: else it
// would prove nothing.
func TestTheSearchForSecretsFindsThem(t *testing.T) { // not parallel: see watch
	w := watch(t)
	const marker = "mArKer5tZ8"
	w.DB.Exec("INSERT INTO sessions (zone_id, id, session_type, subject_id, expires_at) VALUES ($1, $2, 'application', $3, now() + interval '1 hour')", w.zone.ID, marker, w.ids["applications"])
	raw := w.send("DELETE", "/v1/zones/"+w.zone.ID+"/applications/"+w.ids["applications"], "", append(bearer(w.admin), "X-Request-Id", marker)...)
	servertest.Expect(t, raw, http.StatusNoContent, "")
	w.send("GET", "/v1/nothing", "", append(bearer(w.admin), "X-Request-Id", marker)...)
	eventually(t, "the event arrives", func() bool { return w.Redis.Exists(t.Context(), "caracal.sessions.revoke").Val() > 0 })
	w.DB.Exec("UPDATE outbox SET last_error = $1", base64.StdEncoding.EncodeToString([]byte("z"+marker)))
	w.DB.Exec("UPDATE providers SET config_json = jsonb_build_object('x', $1::text)", fmt.Sprint([]byte(marker)))
	w.DB.Exec("UPDATE data_keys SET wrapped = $1", []byte(marker))
	w.DB.Exec("UPDATE zones SET name = $1", fmt.Sprintf("%#v", []byte(marker)))
	w.Redis.Set(t.Context(), "marked", fmt.Sprintf("%X", marker), 0)
	w.Redis.HSet(t.Context(), "marked:hash", "x", base64.URLEncoding.EncodeToString([]byte("zz"+marker)))
	log.Print(marker)
	found := strings.Join(find(map[string][]byte{"the marker": []byte(marker), "a metric": []byte("caracal_api_requests_total")}, w.everywhere()), "\n")
	for _, want := range []string{
		"as it is, is in the log", "as it is, is in an answer", "as it is, is in what Postgres was told", "as it is, is in what Redis was told", "as it is, is in the traces",
		"as it is, is in what was printed", "as it is, is in the caracal.sessions.revoke of Redis", "in upper hex, is in the marked of Redis", "in URL base64 (2), is in the marked:hash of Redis",
		"as it is, is in the table audit_entries", "as it is, is in the table outbox", "in base64 (1), is in the table outbox", "as a list, is in the table providers",
		"in hex, is in the table data_keys", "as a Go list, is in the table zones", "a metric, as it is, is in the metrics",
	} {
		if !strings.Contains(found, want) {
			t.Errorf("it did not find that it %s", want)
		}
	}
	if strings.Contains(found, "is in what a token endpoint was told") {
		t.Error("it found what is not there")
	}
}

// Whatever is printed of what holds secrets, and however, shows none.
func TestNoSecretIsPrinted(t *testing.T) {
	t.Parallel()
	const key = "api_key"
	checked, err := provider.Check(provider.APIKey, json.RawMessage(`{"header_name":"X-Key","api_key":"`+stem+`"}`))
	if err != nil {
		t.Fatal(err)
	}
	changed, err := provider.Change(provider.Stored{Kind: provider.APIKey, SecretKeys: []string{key}}, nil, json.RawMessage(`{"header_name":"X-Key","api_key":"`+stem+`"}`))
	if err != nil {
		t.Fatal(err)
	}
	_, refused := provider.Check(provider.APIKey, json.RawMessage(`{"header_name":7,"api_key":"`+stem+`"}`))
	config, err := server.LoadConfig([]string{
		"DATABASE_URL=postgres://u:" + stem + "@h/d", "REDIS_URL=redis://:" + stem + "@h", "CARACAL_ADMIN_TOKEN=" + stem,
		"ZONE_KEK=" + asKey(1) + "," + asKey(2), "STREAMS_HMAC_KEY=" + asKey(3), "METRICS_BEARER=" + stem,
	})
	if err != nil {
		t.Fatal(err)
	}
	keys, err := config.Keys()
	if err != nil {
		t.Fatal(err)
	}
	dataKey, wrapped := keys.NewDataKey("zone", 1)
	plain := seal.Plaintext(checked.Secrets.Plaintext())
	_, unopened := dataKey.Open(seal.Location{Zone: "zone"}, plain)
	n := store.NewProvider{ProviderConfig: store.ProviderConfig{Kind: "api_key", Secrets: plain, SecretKeys: []string{key}}}
	info := &middleware.RequestInfo{Bearer: stem, Body: []byte(stem), Query: map[string][]string{"token": {stem}}}
	values := map[string]any{
		"config": config, "pointer to config": &config, "setting": config.AdminToken, "checked": checked, "secrets": checked.Secrets, "secret": checked.Secrets[key], "changed": changed,
		"new provider": n, "provider config": n.ProviderConfig, "plaintext": plain, "keys": keys, "data key": dataKey, "wrapped": wrapped,
		"refusal": refused, "unopened": unopened, "facts": info, "facts themselves": *info,
	}
	for _, raw := range []string{
		"https://u:" + stem + "@h.example.com/" + stem + "?token=" + stem, "http://h.example.com/" + stem, "https://h.example.com/" + stem, "https://1.2.3.4/?t=" + stem,
		"https://h.example.com:x" + stem + "/", "https://h.example.com/%zz" + stem, "://" + stem, "https://u:" + stem + "/x@h.example.com/",
	} {
		_, values["egress to "+raw] = egress.New(egress.Options{}).Probe(t.Context(), raw, []string{"other.example.com"})
	}
	secrets := map[string][]byte{"the secret": []byte(stem)}
	for name, v := range values {
		shapes := map[string]any{
			"": v, " in a pointer": &v, " in a list": []any{v}, " in a map": map[string]any{"x": v}, " in a struct": struct{ V any }{v},
		}
		if slices.Contains([]string{"checked", "secrets", "secret", "changed", "keys", "data key"}, name) { // where fmt asks no methods
			shapes[" in a hidden member"] = struct{ v any }{v}
		}
		for shape, v := range shapes {
			var places []place
			for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "% x", "%#x", "%d", "%o", "%c", "%U", "%t", "%T", "%10.3v"} {
				places = append(places, place{name + shape + " as " + verb, fmt.Sprintf(verb, v)})
			}
			if text, err := json.Marshal(v); err == nil {
				places = append(places, place{name + shape + " as JSON", string(text)})
			}
			places = append(places, place{name + shape + " as an error", fmt.Errorf("wrapped: %v", v).Error()})
			var logged bytes.Buffer
			for _, handler := range []slog.Handler{slog.NewJSONHandler(&logged, nil), slog.NewTextHandler(&logged, nil)} {
				slog.New(handler).Info("x", "value", v, slog.Any("any", v), slog.Group("group", "value", v))
			}
			places = append(places, place{name + shape + " in slog", logged.String()})
			for _, found := range find(secrets, places) {
				t.Error(found)
			}
		}
	}
	t.Logf("%d values were printed", len(values))
}

// A setting that is wrong is named, and not quoted.
func TestNoSettingThatIsWrongIsQuoted(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	for _, tt := range []struct{ name, setting string }{
		{"a slash in the database's password", "DATABASE_URL=postgres://u:" + stem + "/x@localhost/d"},
		{"a question mark in it", "DATABASE_URL=postgres://u:" + stem + "?x@localhost/d"},
		{"a hash in it", "DATABASE_URL=postgres://u:" + stem + "#x@localhost/d"},
		{"a per cent sign in it", "DATABASE_URL=postgres://u:a:" + stem + "%zz@localhost/d"},
		{"a space in it", "DATABASE_URL=postgres://u:a " + stem + "@localhost/d"},
		{"a colon in it, and no port", "DATABASE_URL=postgres://u:" + stem + ":x@localhost:port/d"},
		{"the database's password in words", "DATABASE_URL=host=localhost password='a " + stem},
		{"the database's password as a word", "DATABASE_URL=host=localhost port=x password=" + stem},
		{"a password that is no setting", "DATABASE_URL=host=localhost " + stem},
		{"a database that is not there", "DATABASE_URL=postgres://u:" + stem + "@127.0.0.1:1/d?sslmode=disable"},
		{"a database whose mode of TLS is wrong", "DATABASE_URL=postgres://u:" + stem + "@127.0.0.1:1/d?sslmode=x"},
		{"a slash in Redis' password", "REDIS_URL=redis://:" + stem + "/x@localhost"},
		{"a per cent sign in it", "REDIS_URL=redis://:" + stem + "%zz@localhost"},
		{"a Redis of another scheme", "REDIS_URL=x://:" + stem + "@localhost"},
		{"a key that is not hexadecimal", "ZONE_KEK=" + stem},
		{"a key that is too short", "ZONE_KEK=" + hex.EncodeToString([]byte(stem))},
		{"a key that is there twice", "ZONE_KEK=" + asKey(1) + " " + asKey(1)},
		{"a key that signs and is not hexadecimal", "STREAMS_HMAC_KEY=" + stem},
		{"a key that signs and is too short", "STREAMS_HMAC_KEY=" + hex.EncodeToString([]byte(stem))},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			heard := &servertest.Log{}
			config, err := server.LoadConfig([]string{
				"CARACAL_MODE=dev", "PORT=0", "REDIS_URL=redis://localhost", "DATABASE_URL=" + db.URL(), "ZONE_KEK=" + servertest.KEK, "DB_CONNECTION_TIMEOUT_MS=500", tt.setting,
			})
			if err == nil {
				var running *server.Service
				running, err = server.Start(t.Context(), config, slog.New(slog.NewJSONHandler(heard, nil)))
				if err == nil {
					_ = running.Stop()
					t.Fatal("it started")
				}
			}
			failures := []error{err}
			if databaseURL, is := strings.CutPrefix(tt.setting, "DATABASE_URL="); is { // as is CARACAL_MIGRATE_URL
				failures = append(failures, store.Migrate(t.Context(), databaseURL, func(string) {}))
			}
			places := []place{{"the log", heard.String()}}
			for _, failure := range failures {
				if failure == nil {
					t.Fatal("nothing failed")
				}
				for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
					places = append(places, place{verb, fmt.Sprintf(verb, failure)})
				}
			}
			for _, found := range find(map[string][]byte{"the secret": []byte(stem)}, places) {
				t.Error(found)
			}
		})
	}
}
