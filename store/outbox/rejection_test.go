package outbox_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"caracal.run/management/store/storetest"
)

// TestPublishCountsAttemptsOnlyForRejectedEvents scripts Redis's reply to one stream: a reply about the event
// counts an attempt, a reply about the server counts none.
func TestPublishCountsAttemptsOnlyForRejectedEvents(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		reply    string
		rejected bool
	}{
		{"ERR The stream has exhausted the last possible ID, unable to add more items", true},
		{"ERR value is not an integer or out of range", true},
		{"WRONGTYPE Operation against a key holding the wrong kind of value", true},
		{"ERR max number of clients reached", false},
		{"ERR Protocol error: unauthenticated multibulk length", false},
		{"ERR unknown command 'XADD', with args beginning with: 'bad.stream' ", false},
		{"NOPERM this user has no permissions to access one of the keys used as arguments", false},
		{"NOAUTH Authentication required.", false},
		{"ERR DB index is out of range", false},
		{"OOM command not allowed when used memory > 'maxmemory'.", false},
		{"LOADING Redis is loading the dataset in memory", false},
		{"READONLY You can't write against a read only replica.", false},
		{"MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.", false},
		{"CLUSTERDOWN The cluster is down", false},
		{"MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.", false},
		{"NOREPLICAS Not enough good replicas to write.", false},
	} {
		t.Run(tt.reply, func(t *testing.T) {
			t.Parallel()
			b := newReplica(t, storetest.New(t), scriptedRedis(t, map[string]string{"bad.stream": "-" + tt.reply}))
			bad := b.Event("sick", "bad.stream")
			b.Event("well", stream)
			_, err := b.tryPublish()
			attempts := storetest.Value[int](b.DB, "SELECT attempts FROM outbox WHERE id = $1", bad)
			if pending := storetest.Column[string](b.DB, "SELECT id FROM outbox WHERE dispatched_at IS NULL"); !slices.Equal(pending, []string{bad}) {
				t.Errorf("pending: %v, want only %s", pending, bad)
			}
			switch {
			case tt.rejected && (err != nil || attempts != 1):
				t.Errorf("error %v and %d attempts, want none and 1", err, attempts)
			case !tt.rejected && (err == nil || attempts != 0):
				t.Errorf("error %v and %d attempts, want an error and 0", err, attempts)
			}
		})
	}
}

// TestPublishPausesOnlyZoneOfExhaustedStream uses a stream whose ids are exhausted:
// Redis replies ERR to every XADD.
func TestPublishPausesOnlyZoneOfExhaustedStream(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	if err := b.redis.Do(t.Context(), "XADD", "full.stream", "18446744073709551615-18446744073709551615", "f", "v").Err(); err != nil {
		t.Fatal(err)
	}
	bad := b.Event("sick", "full.stream")
	behind := b.Event("sick", stream)
	b.publish()
	var others []string
	for range 5 {
		others = append(others, b.Event("well", stream))
		b.publish()
	}
	eventually(t, "the rejected event is dead and its zone continues", func() bool {
		b.publish()
		return slices.Equal(b.dead(), []string{bad}) && slices.Contains(b.arrived(stream), behind)
	})
	arrived := slices.DeleteFunc(b.arrived(stream), func(id string) bool { return id == behind })
	if !slices.Equal(arrived, others) {
		t.Errorf("the other zone's events: %v, want %v", arrived, others)
	}
	if text := lastError(b, bad); !strings.HasPrefix(text, "ERR ") {
		t.Errorf("last error %q", text)
	}
	if stat := b.Stat(); stat.Unavailable != 0 || stat.Rejected != 3 {
		t.Errorf("stat %+v, want 3 rejected and none unavailable", stat)
	}
}

// TestPublishPausesOnlyZoneOfMalformedEvent inserts a row that no code of
// this program writes.
func TestPublishPausesOnlyZoneOfMalformedEvent(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.Exec(`INSERT INTO outbox (zone_id, id, stream, fields, request_id) VALUES ('sick', 'bad', $1, '[1]', 'r')`, stream)
	behind := b.Event("sick", stream)
	other := b.Event("well", stream)
	b.publish()
	if got := b.arrived(stream); !slices.Equal(got, []string{other}) {
		t.Errorf("arrived %v, want only the other zone's %s", got, other)
	}
	eventually(t, "it is dead and its zone continues", func() bool {
		b.publish()
		return slices.Equal(b.dead(), []string{"bad"}) && slices.Equal(b.arrived(stream), []string{other, behind})
	})
	if n := storetest.Value[int](b.DB, "SELECT attempts FROM outbox WHERE id = 'bad'"); n != 3 {
		t.Errorf("%d attempts, want 3", n)
	}
}

func TestPublishStoresErrorOfEachRejectedEvent(t *testing.T) {
	t.Parallel()
	b := newReplica(t, storetest.New(t), scriptedRedis(t, map[string]string{
		"a.stream": "-WRONGTYPE Operation against a key holding the wrong kind of value",
		"b.stream": "-ERR quoted \x00 \xff bytes",
	}))
	first, second := b.Event("a", "a.stream"), b.Event("b", "b.stream")
	b.publish()
	if text := lastError(b, first); !strings.HasPrefix(text, "WRONGTYPE ") {
		t.Errorf("the first event has the error %q", text)
	}
	if text := lastError(b, second); text != "ERR quoted \uFFFD \uFFFD bytes" {
		t.Errorf("the second event has the error %q", text)
	}
}

func lastError(b *bench, id string) string {
	return storetest.Value[string](b.DB, "SELECT last_error FROM outbox WHERE id = $1", id)
}

// scriptedRedis serves the Redis protocol (RESP) and replies to XADD by the
// stream's name, with an entry id for every other stream. It returns its URL.
func scriptedRedis(t *testing.T, replies map[string]string) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				for r := bufio.NewReader(conn); ; {
					command, err := readCommand(r)
					if err != nil {
						return
					}
					reply := "+OK"
					switch strings.ToUpper(command[0]) {
					case "HELLO":
						reply = "-ERR unknown command 'HELLO'"
					case "XADD":
						if reply = replies[command[1]]; reply == "" {
							reply = "$3\r\n1-0"
						}
					}
					if _, err := fmt.Fprint(conn, reply, "\r\n"); err != nil {
						return
					}
				}
			}()
		}
	}()
	return "unix://" + socket
}

// readCommand reads an array of bulk strings.
func readCommand(r *bufio.Reader) ([]string, error) {
	length := func() (int, error) {
		line, err := r.ReadString('\n')
		if err != nil {
			return 0, err
		}
		return strconv.Atoi(strings.TrimSpace(line[1:]))
	}
	n, err := length()
	if err != nil {
		return nil, err
	}
	command := make([]string, n)
	for i := range command {
		size, err := length()
		if err != nil {
			return nil, err
		}
		text := make([]byte, size+len("\r\n"))
		if _, err := io.ReadFull(r, text); err != nil {
			return nil, err
		}
		command[i] = string(text[:size])
	}
	return command, nil
}
