package redisconn_test

import (
	"strings"
	"testing"

	"caracal.run/management/store/redisconn"
)

// An error about the URL contains nothing of it, because a part of it is a password.
func TestCheckURL(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ url, want string }{
		{"redis://", ""},
		{"redis://user:canary@host:6379/3", ""},
		{"rediss://:canary@host?dial_timeout=2s", ""},
		{"unix://user:canary@/run/redis.sock?db=2", ""},
		{"redis://user:canary@host:6379?addr=host2:6379&addr=host3:6379", ""},
		{"redis://user:canary@host:6379?cluster=true", ""},
		{"redis://host:26379?master_name=main&addr=host2:26379&username=user&password=canary", ""},
		{"canary", "must begin with redis://, rediss:// or unix://"},
		{"http://user:canary@host", "must begin with redis://, rediss:// or unix://"},
		{"redis://user:can/ary%zz@host", "must be percent-encoded"},
		{"redis://user:canary#@host", "must be percent-encoded"},
		{"redis://user:canary@host/canary", "invalid database number"},
		{"redis://user:canary@host?canary=1", "invalid database number, address or parameter"},
		{"redis://user:canary@host?addr=canary", "invalid database number, address or parameter"},
		{"redis://user:canary@host?cluster=true&canary=1", "invalid database number, address or parameter"},
		{"redis://user:canary@host?master_name=main&db=canary", "invalid database number, address or parameter"},
	} {
		err := redisconn.CheckURL(tt.url)
		switch {
		case tt.want == "" && err != nil:
			t.Errorf("%s: %v", tt.url, err)
		case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "can")):
			t.Errorf("%s: error %v, want %s", tt.url, err, tt.want)
		}
	}
}
