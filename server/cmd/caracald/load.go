package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"caracal.run/management/gen/client"
	"caracal.run/management/server"
	"caracal.run/management/store"
	"caracal.run/management/store/private"
)

func loadCommand() *cobra.Command {
	var duration time.Duration
	var callers int
	cmd := &cobra.Command{
		Use:   "load",
		Short: "Run a mixed load test on private servers",
		Long: `Starts an ephemeral Postgres, Redis and service, sends requests, and prints latencies,
errors and memory.`,
		Example: "  caracald load --for 30s --callers 32",
		Args:    arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return load(cmd.Context(), cmd.OutOrStdout(), duration, callers)
		},
	}
	cmd.Flags().DurationVar(&duration, "for", 10*time.Second, "`duration` of the load")
	cmd.Flags().IntVar(&callers, "callers", 16, "`number` of concurrent callers")
	return cmd
}

// load sends a mixed load to a service in this process, with an ephemeral Postgres and
// Redis, and prints latencies, errors and memory.
func load(ctx context.Context, out io.Writer, duration time.Duration, callers int) (err error) {
	servers, err := private.Start(ctx, private.Options{Log: stepPrinter(out)})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, servers.Stop()) }()
	if err := store.Migrate(ctx, servers.PostgresURL(private.Owner, "caracal"), func(string) {}); err != nil {
		return err
	}
	const token = "load"
	config, err := server.LoadConfig([]string{
		"CARACAL_MODE=dev", "PORT=0", "ZONE_KEK=" + strings.Repeat("01", 32), "CARACAL_ADMIN_TOKEN=" + token, "API_V1_RATE_LIMIT_PER_MIN=0",
		"DATABASE_URL=" + servers.PostgresURL(private.Service, "caracal"), "REDIS_URL=" + servers.RedisURL(),
	})
	if err != nil {
		return err
	}
	running, err := server.Start(ctx, config, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, running.Stop()) }()
	c, err := client.New(running.URL, token, client.WithTransport(&http.Transport{MaxIdleConnsPerHost: callers}), client.WithoutRetry())
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%d callers for %v: half reads by id, the rest lists, updates, creations and deletions\n", callers, duration)
	r, err := runLoad(ctx, c, callers, duration)
	if err != nil {
		return err
	}
	r.print(out, duration)
	return nil
}

// results holds the durations of the requests of a load by operation, and the number
// of errors by message.
type results struct {
	mu        sync.Mutex
	durations map[string][]time.Duration
	errors    map[string]int
}

// record adds a request that has just ended.
func (r *results) record(operation string, start time.Time, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.durations[operation] = append(r.durations[operation], time.Since(start))
	if err != nil {
		r.errors[operation+": "+err.Error()]++
	}
}

// runLoad creates zones with applications, and then sends requests about them from
// concurrent callers for the duration.
func runLoad(ctx context.Context, c *client.Client, callers int, duration time.Duration) (*results, error) {
	const zones, applications = 8, 50
	var created []client.Zone
	for range zones {
		zone, err := c.CreateZone(ctx, client.NewZone{Name: "Load"})
		if err != nil {
			return nil, err
		}
		created = append(created, zone)
		for range applications {
			if _, err := c.CreateApplication(ctx, zone.ID, loadApplication); err != nil {
				return nil, err
			}
		}
	}
	r := &results{durations: map[string][]time.Duration{}, errors: map[string]int{}}
	end := time.Now().Add(duration)
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for time.Now().Before(end) && ctx.Err() == nil {
				zone := created[rand.N(len(created))].ID
				start := time.Now()
				switch n := rand.N(100); {
				case n < 50:
					_, err := c.GetZone(ctx, zone)
					r.record("get a zone", start, err)
				case n < 65:
					_, err := c.ListApplications(ctx, zone, client.Limit(applications))
					r.record("list 50 applications", start, err)
				case n < 80:
					_, err := c.UpdateZone(ctx, zone, client.ZonePatch{Name: new(start.Format(time.StampMicro))}) // another name, so that it is written
					r.record("update a zone", start, err)
				default:
					a, err := c.CreateApplication(ctx, zone, loadApplication)
					r.record("create an application", start, err)
					if err == nil {
						start = time.Now()
						r.record("delete an application", start, c.DeleteApplication(ctx, zone, a.ID))
					}
				}
			}
		})
	}
	wg.Wait()
	return r, ctx.Err()
}

var loadApplication = client.NewApplication{Name: "Load", RegistrationMethod: client.NewApplicationRegistrationMethodManaged}

// print prints a table of the latencies, the errors and the memory.
func (r *results) print(out io.Writer, duration time.Duration) {
	fmt.Fprintf(out, "%-24s %9s %9s %9s %9s %9s\n", "", "requests", "per s", "median", "p99", "slowest")
	var all []time.Duration
	printRow := func(operation string, durations []time.Duration) {
		slices.Sort(durations)
		quantile := func(q float64) time.Duration {
			return durations[int(q*float64(len(durations)-1))].Round(10 * time.Microsecond)
		}
		fmt.Fprintf(out, "%-24s %9d %9.0f %9v %9v %9v\n", operation, len(durations), float64(len(durations))/duration.Seconds(), quantile(.5), quantile(.99), quantile(1))
	}
	for _, operation := range []string{"get a zone", "list 50 applications", "update a zone", "create an application", "delete an application"} {
		if durations := r.durations[operation]; len(durations) > 0 {
			all = append(all, durations...)
			printRow(operation, durations)
		}
	}
	if len(all) > 0 {
		printRow("all", all)
	}
	fmt.Fprintf(out, "errors: %d distinct\n", len(r.errors))
	for text, n := range r.errors {
		fmt.Fprintf(out, "%9d × %s\n", n, text)
	}
	fmt.Fprintf(out, "after the load, including the callers: %s resident memory, %d goroutines\n", resident(), runtime.NumGoroutine())
}

// resident returns the resident memory of this process, as the kernel reports it.
func resident() string {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return "unknown"
	}
	for line := range strings.Lines(string(text)) {
		if size, found := strings.CutPrefix(line, "VmRSS:"); found {
			return strings.TrimSpace(size)
		}
	}
	return "unknown"
}
