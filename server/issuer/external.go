package issuer

import (
	"context"
	"crypto/ecdsa"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"caracal.run/management/gen/code"
	"caracal.run/management/store"
)

// externalKeys fetches the keys of another service that issues tokens. An operator
// configures the URL, so it may be an internal address: the rules of package egress do not
// apply. Redirects are not followed, and time and size are bounded.
type externalKeys struct {
	store  *store.Store
	url    string
	client *http.Client
}

func newKeysClient() *http.Client {
	const maxHeader = 16 << 10
	return &http.Client{
		Transport:     &http.Transport{MaxResponseHeaderBytes: maxHeader, IdleConnTimeout: time.Minute, MaxConnsPerHost: 16},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// load fetches the keys of a zone. There are none if the service responds with 404, and nil,
// without a request, if the zone is not active. It ignores keys that cannot verify.
func (e externalKeys) load(ctx context.Context, zone string) (map[string]*ecdsa.PublicKey, error) {
	_, err := e.store.Zone(ctx, zone)
	if errors.Is(err, code.ZoneNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, e.url+"?zone_id="+url.QueryEscape(zone), nil)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Accept", "application/json")
	resp, err := e.client.Do(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusNotFound:
		return map[string]*ecdsa.PublicKey{}, nil
	default:
		return nil, fmt.Errorf("the issuer responded with status %d", resp.StatusCode)
	}
	const maxBody = 64 << 10
	content, err := io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	if err != nil {
		return nil, err
	}
	if len(content) > maxBody {
		return nil, fmt.Errorf("the keys of the issuer are larger than %d bytes", maxBody)
	}
	return parseKeys(content)
}

// parseKeys returns the keys of a JSON Web Key Set that verify ES256.
func parseKeys(content []byte) (map[string]*ecdsa.PublicKey, error) {
	var set struct {
		Keys []struct {
			store.PublicJWK
			ID        string `json:"kid"`
			Use       string `json:"use"`
			Algorithm string `json:"alg"`
		} `json:"keys"`
	}
	if err := json.Unmarshal(content, &set); err != nil {
		return nil, fmt.Errorf("the keys of the issuer are malformed: %w", err)
	}
	if set.Keys == nil {
		return nil, errors.New("the response of the issuer has no keys")
	}
	keys := map[string]*ecdsa.PublicKey{}
	for _, k := range set.Keys {
		if k.Kty != "EC" || k.Crv != "P-256" || k.ID == "" || k.Use != "" && k.Use != "sig" || k.Algorithm != "" && k.Algorithm != "ES256" {
			continue
		}
		if key, err := k.Key(); err == nil {
			keys[k.ID] = key
		}
	}
	return keys, nil
}
