package store

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Reads of a bounded size share a few connections. A read travels like this:
//
//  1. A query of [Store.shared] is handed to one of the pipelines through a channel,
//     and its reader waits.
//  2. A pipeline is a connection and a goroutine. It takes the reads that wait at the
//     moment, and sends them in one write. Each is preceded by its scope and ended by
//     its own Sync, so it is a transaction of its own, with its own scope and error.
//  3. The pipeline reads the results in the same order, copies the rows of each read,
//     and wakes the reader, which decodes them in its own goroutine.
//
// No read waits longer than maxWait for its neighbors: then it is run on a pooled
// connection, where it can take as long as any other statement. The same happens, once,
// if the connection is lost. A reader whose context ends leaves at once; its result is
// discarded when it arrives.
//
// Through a connection pooler, or if the database URL names another mode than
// cache_statement, every read has a pooled connection: pipelines prepare statements.
const (
	// maxPipelines is the number of connections that reads share, in each process.
	maxPipelines = 2
	// maxPipelined is how many reads travel in one write.
	maxPipelined = 16
	// maxWait limits the time until a read is taken, and the duration of all reads that
	// travel in one write.
	maxWait = time.Second
	// maxKeptBuffer is the size up to which a pipeline keeps the buffer that it collects
	// rows in.
	maxKeptBuffer = 256 << 10
)

// A pipelines hands reads to connections that are shared.
type pipelines struct {
	store     *Store
	start     sync.Once
	reads     chan *sharedRead
	connected atomic.Int32 // the number of pipelines that take reads

	ctx  context.Context // ends when the store is closed
	stop context.CancelFunc
	done sync.WaitGroup
}

// A sharedRead is a query and its result. A pipeline writes the result before it closes
// done.
type sharedRead struct {
	settings, zone, sql string
	args                []any
	reuse               bool // the reader returns the memory of the rows when it closes them

	done    chan struct{}
	fields  []pgconn.FieldDescription
	values  []byte     // the encoded values of all rows
	lengths []int32    // of each value; -1 is NULL
	memory  *rowMemory // of both, if it is reused
	tag     pgconn.CommandTag
	err     error
	retry   bool // the pipeline could not run it: run it on a pooled connection
}

// A rowMemory is the memory of rows that are read and then forgotten.
type rowMemory struct {
	values  []byte
	lengths []int32
}

var rowMemories = sync.Pool{New: func() any { return new(rowMemory) }}

// release lets later reads use the memory of the rows.
func (r *sharedRead) release() {
	if r.memory != nil && cap(r.memory.values) <= maxKeptBuffer {
		rowMemories.Put(r.memory)
	}
	r.memory, r.values, r.lengths = nil, nil, nil
}

func newPipelines(s *Store) *pipelines {
	p := &pipelines{store: s, reads: make(chan *sharedRead)}
	p.ctx, p.stop = context.WithCancel(context.Background())
	return p
}

func (p *pipelines) close() {
	p.start.Do(func() {})
	p.stop()
	p.done.Wait()
}

// read runs a query on a shared connection. It reports false if the query must be run
// on a pooled connection instead.
func (p *pipelines) read(ctx context.Context, r *sharedRead) (*sharedRead, bool) {
	if p.connected.Load() == 0 {
		p.start.Do(func() { // by the first read: many programs need no more than the pool
			for range maxPipelines {
				p.done.Go((&pipeline{pipelines: p}).run)
			}
		})
		return nil, false
	}
	r.done = make(chan struct{})
	select {
	case p.reads <- r:
	default: // every pipeline is busy
		timeout := time.NewTimer(maxWait)
		defer timeout.Stop()
		select {
		case p.reads <- r:
		case <-timeout.C:
			return nil, false
		case <-p.ctx.Done():
			return nil, false
		case <-ctx.Done():
			return &sharedRead{err: ctx.Err()}, true
		}
	}
	select {
	case <-r.done:
		return r, !r.retry
	case <-ctx.Done():
		return &sharedRead{err: ctx.Err()}, true // the pipeline still uses r
	}
}

// A pipeline runs shared reads on one connection.
type pipeline struct {
	*pipelines
	conn       *pgx.Conn
	statements map[string]*preparedRead
	encoder    pgx.ExtendedQueryBuilder
	unfinished []*sharedRead // the reads that it has taken
	values     []byte        // buffers of readRows
	lengths    []int32
}

type preparedRead struct {
	description *pgconn.StatementDescription
	fields      []pgconn.FieldDescription // with formats
	formats     []int16
}

// run takes reads while it is connected, and otherwise reconnects. It ends when the
// store is closed, or if statements cannot be prepared.
func (p *pipeline) run() {
	const retryInterval = 500 * time.Millisecond
	for p.ctx.Err() == nil {
		conn, err := p.store.connect(p.ctx)
		switch {
		case err != nil:
			select {
			case <-p.ctx.Done():
			case <-time.After(retryInterval + rand.N(retryInterval)):
			}
			continue
		case !p.store.modes.prepares(): // known since the first connection
			_ = conn.Close(p.ctx)
			return
		}
		p.conn, p.statements = conn, map[string]*preparedRead{}
		p.connected.Add(1)
		p.takeReads()
		p.connected.Add(-1)
		p.disconnect()
	}
}

// takeReads runs reads until the connection is lost or the store is closed.
func (p *pipeline) takeReads() {
	reads := make([]*sharedRead, 0, maxPipelined)
	for {
		select {
		case <-p.ctx.Done():
			return
		case r := <-p.reads:
			reads = append(reads[:0], r)
		}
		for waiting := true; waiting && len(reads) < maxPipelined; {
			select {
			case r := <-p.reads:
				reads = append(reads, r)
			default:
				waiting = false
			}
		}
		p.unfinished = reads
		if err := p.runBatch(); err != nil {
			return
		}
		clear(reads) // the results belong to the readers
	}
}

// disconnect closes the connection. The readers of the unfinished reads run them on
// pooled connections.
func (p *pipeline) disconnect() {
	const timeout = time.Second
	for len(p.unfinished) > 0 {
		p.finish(p.unfinished[0], true)
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	_ = p.conn.Close(ctx)
}

// finish wakes the reader of the first unfinished read.
func (p *pipeline) finish(r *sharedRead, retry bool) {
	r.retry = retry
	p.unfinished = p.unfinished[1:]
	close(r.done)
}

// runBatch sends the unfinished reads, receives their results and wakes their readers.
// It returns an error if the connection is lost.
func (p *pipeline) runBatch() error {
	if err := p.prepareAll(); err != nil {
		return err
	}
	// Postgres limits each statement, this all of them together.
	if err := p.conn.PgConn().Conn().SetDeadline(time.Now().Add(maxWait)); err != nil {
		return err
	}
	pipeline := p.conn.PgConn().StartPipeline(context.Background())
	for _, r := range p.unfinished {
		if r.err = p.send(pipeline, r.settings, r.zone, maxWaitText); r.err == nil {
			r.err = p.send(pipeline, r.sql, r.args...)
		}
		pipeline.SendPipelineSync()
	}
	if err := pipeline.Flush(); err != nil {
		return err
	}
	for len(p.unfinished) > 0 {
		r := p.unfinished[0]
		retry, err := p.receive(pipeline, r)
		if err != nil {
			_ = pipeline.Close()
			return err
		}
		p.finish(r, retry)
	}
	return pipeline.Close()
}

// maxWaitText is maxWait in milliseconds, converted to an interface once.
var maxWaitText any = strconv.FormatInt(maxWait.Milliseconds(), 10)

// prepareAll prepares the statements that are sent on this connection for the first
// time. A read whose statement Postgres rejects is run on a pooled connection, which
// returns the error.
func (p *pipeline) prepareAll() error {
	for i := 0; i < len(p.unfinished); {
		r := p.unfinished[i]
		err := p.prepare(r.settings)
		if err == nil {
			err = p.prepare(r.sql)
		}
		var pg *pgconn.PgError
		switch {
		case err == nil:
			r.fields = p.statements[r.sql].fields
			i++
		case errors.As(err, &pg) && pg.Severity != "FATAL":
			p.unfinished[0], p.unfinished[i] = r, p.unfinished[0]
			p.finish(r, true)
		default:
			return err
		}
	}
	return nil
}

func (p *pipeline) prepare(sql string) error {
	if p.statements[sql] != nil {
		return nil
	}
	if err := p.conn.PgConn().Conn().SetDeadline(time.Now().Add(maxWait)); err != nil {
		return err
	}
	description, err := p.conn.PgConn().Prepare(context.Background(), fmt.Sprint("read_", len(p.statements)), sql, nil)
	if err != nil {
		return err
	}
	statement := &preparedRead{description: description}
	for _, field := range description.Fields {
		field.Format = p.conn.TypeMap().FormatCodeForOID(field.DataTypeOID)
		statement.fields, statement.formats = append(statement.fields, field), append(statement.formats, field.Format)
	}
	p.statements[sql] = statement
	return nil
}

func (p *pipeline) send(pipeline *pgconn.Pipeline, sql string, args ...any) error {
	statement := p.statements[sql]
	if err := p.encoder.Build(p.conn.TypeMap(), statement.description, args); err != nil {
		return err
	}
	pipeline.SendQueryStatement(statement.description, p.encoder.ParamValues, p.encoder.ParamFormats, statement.formats)
	return nil
}

// receive reads the results of one read: of its scope, of its query, and of its Sync.
// It reports whether the read must be run on a pooled connection, and returns an error
// if the connection is lost or its statements are out of date.
//
// It relies on no description of the columns that pgx keeps: after a failed scope, they
// are those of another statement.
func (p *pipeline) receive(pipeline *pgconn.Pipeline, r *sharedRead) (retry bool, err error) {
	for n := 0; ; n++ {
		results, err := pipeline.GetResults()
		switch results := results.(type) {
		case *pgconn.PipelineSync:
			return retry, nil
		case *pgconn.ResultReader:
			if n == 0 {
				_, err = results.Close() // of the scope
			} else {
				err = p.readRows(results, r)
			}
		}
		var pg *pgconn.PgError
		switch {
		case err == nil && results == nil:
			return false, errors.New("missing result")
		case err == nil:
		case !errors.As(err, &pg), pg.Severity == "FATAL":
			return false, err
		case pg.Code == "0A000", pg.Code == "26000": // the schema has changed; the statement does not exist any more
			return false, err
		case pg.Code == queryCanceled: // the statement takes longer than maxWait
			retry = true
		default:
			r.err = err
		}
	}
}

// readRows copies the values of all rows, as the connection reuses its buffer.
func (p *pipeline) readRows(results *pgconn.ResultReader, r *sharedRead) (err error) {
	values, lengths := p.values[:0], p.lengths[:0]
	if r.reuse {
		r.memory = rowMemories.Get().(*rowMemory)
		values, lengths = r.memory.values[:0], r.memory.lengths[:0]
	}
	for results.NextRow() {
		for _, value := range results.Values() {
			if value == nil {
				lengths = append(lengths, -1)
				continue
			}
			values, lengths = append(values, value...), append(lengths, int32(len(value)))
		}
	}
	switch {
	case r.reuse:
		r.values, r.lengths = values, lengths
		r.memory.values, r.memory.lengths = values, lengths
	default:
		r.values, r.lengths = slices.Clone(values), slices.Clone(lengths)
		if cap(values) <= maxKeptBuffer {
			p.values, p.lengths = values, lengths
		}
	}
	r.tag, err = results.Close()
	return err
}

// sharedReads implements sqlc's DBTX for reads that share connections.
type sharedReads struct {
	pipelines *pipelines
	pooled    scoped
	reuse     bool // see sharedRead
}

func (s sharedReads) read(ctx context.Context, sql string, args []any) (*sharedRead, bool) {
	return s.pipelines.read(ctx, &sharedRead{settings: s.pooled.settings, zone: s.pooled.zone, sql: sql, args: args, reuse: s.reuse})
}

// Exec is for statements that change rows, which are not run again if a connection is
// lost.
func (s sharedReads) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	return s.pooled.Exec(ctx, sql, args...)
}

func (s sharedReads) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	if r, finished := s.read(ctx, sql, args); finished {
		return newRowReader(r), mapError(r.err)
	}
	return s.pooled.Query(ctx, sql, args...)
}

func (s sharedReads) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	if r, finished := s.read(ctx, sql, args); finished {
		return singleRow{newRowReader(r)}
	}
	return s.pooled.QueryRow(ctx, sql, args...)
}

// A singleRow scans the first row.
type singleRow struct{ rows *rowReader }

func (r singleRow) Scan(dest ...any) error {
	defer r.rows.Close()
	if !r.rows.Next() {
		if r.rows.err != nil {
			return mapError(r.rows.err)
		}
		return pgx.ErrNoRows
	}
	return mapError(r.rows.Scan(dest...))
}
