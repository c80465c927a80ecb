package store

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
)

// Reads of a bounded size share a few connections. A read travels like this:
//
//  1. A query of [Store.shared] reaches sharedReads, which hands it to one of the
//     pipelines through a channel and waits.
//  2. A pipeline is a connection and a goroutine. It takes all reads that wait at the
//     moment, and sends them in one write. Each is preceded by its scope and ended by
//     its own Sync, so it is a transaction of its own, with its own scope and error.
//  3. The pipeline reads the results in the same order, copies the rows of each read,
//     and wakes the reader, which decodes them in its own goroutine.
//
// A reader whose context ends leaves at once. Its result is discarded when it arrives,
// so its neighbors are not disturbed. A statement that takes longer than
// pipelineTimeout is canceled by Postgres and run again on a pooled connection, where
// it can take as long as any other: no read waits longer than that for a neighbor. If
// a connection is lost, its reads are run again in the same way, once.
//
// Through a connection pooler, or if the database URL names another mode than
// cache_statement, every read has a pooled connection: pipelines prepare statements.
const (
	// maxPipelines is the number of connections that reads share, in each process.
	maxPipelines = 2
	// maxPipelined is how many reads travel in one write.
	maxPipelined = 32
	// pipelineTimeout limits a statement, and so how long its neighbors wait for it.
	pipelineTimeout = time.Second
	// resultTimeout limits the wait for a result. A connection without one is lost.
	resultTimeout = 2 * pipelineTimeout
)

// A pipelines hands reads to connections that are shared.
type pipelines struct {
	store *Store
	reads chan *sharedRead
	ctx   context.Context // ends when the store is closed
	stop  context.CancelFunc
	done  sync.WaitGroup
}

// A sharedRead is a query and its result. A pipeline writes the result before it closes
// done.
type sharedRead struct {
	zone, sql string
	args      []any

	done   chan struct{}
	fields []pgconn.FieldDescription
	rows   []rawRow
	tag    pgconn.CommandTag
	err    error
	retry  bool // the pipeline could not run it: run it on a pooled connection
}

// A rawRow has the encoded values of a row; nil is NULL.
type rawRow [][]byte

func (s *Store) startPipelines() *pipelines {
	p := &pipelines{store: s, reads: make(chan *sharedRead)}
	p.ctx, p.stop = context.WithCancel(context.Background())
	for range maxPipelines {
		p.done.Go((&pipeline{pipelines: p}).run)
	}
	return p
}

func (p *pipelines) close() {
	p.stop()
	p.done.Wait()
}

// read runs a query on a shared connection. It reports false if the query must be run
// on a pooled connection instead.
func (p *pipelines) read(ctx context.Context, zone, sql string, args []any) (*sharedRead, bool) {
	if !p.store.modes.prepares() {
		return nil, false
	}
	r := &sharedRead{zone: zone, sql: sql, args: args, done: make(chan struct{})}
	select {
	case p.reads <- r:
	case <-ctx.Done():
		return &sharedRead{err: ctx.Err()}, true
	case <-p.ctx.Done():
		return nil, false
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
	conn       *pgx.Conn // nil until the first read, and after the connection was lost
	statements map[string]*preparedRead
	encoder    pgx.ExtendedQueryBuilder
	batch      []*sharedRead // the reads in progress
}

type preparedRead struct {
	description *pgconn.StatementDescription
	fields      []pgconn.FieldDescription // with formats
	formats     []int16
}

func (p *pipeline) run() {
	defer p.disconnect()
	for {
		select {
		case <-p.ctx.Done():
			return
		case r := <-p.reads:
			p.batch = append(p.batch[:0], r)
		}
		for waiting := true; waiting && len(p.batch) < maxPipelined; {
			select {
			case r := <-p.reads:
				p.batch = append(p.batch, r)
			default:
				waiting = false
			}
		}
		p.runBatch()
	}
}

// runBatch runs the reads of the batch, and wakes their readers.
func (p *pipeline) runBatch() {
	finished := 0
	err := p.connect()
	if err == nil {
		finished, err = p.exchange()
	}
	if err == nil {
		return
	}
	p.disconnect()
	for _, r := range p.batch[finished:] {
		r.retry = true
		close(r.done)
	}
}

func (p *pipeline) connect() (err error) {
	if p.conn == nil {
		p.statements = map[string]*preparedRead{}
		p.conn, err = p.store.connect(p.ctx)
	}
	if err == nil && !p.store.modes.prepares() {
		return errors.New("the connection pooler can lose prepared statements") // known since the first connection
	}
	return err
}

func (p *pipeline) disconnect() {
	const timeout = time.Second
	if p.conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	_ = p.conn.Close(ctx)
	p.conn = nil
}

// exchange sends the batch and receives the results. It returns the number of reads
// that it finished, and an error if the connection is lost.
func (p *pipeline) exchange() (finished int, err error) {
	expectResult := func() error { return p.conn.PgConn().Conn().SetDeadline(time.Now().Add(resultTimeout)) }
	if err := expectResult(); err != nil {
		return 0, err
	}
	for _, r := range p.batch {
		if err := errors.Join(p.prepare(setScope), p.prepare(r.sql)); err != nil {
			return 0, err
		}
	}
	pipeline, timeout := p.conn.PgConn().StartPipeline(context.Background()), strconv.FormatInt(pipelineTimeout.Milliseconds(), 10)
	for _, r := range p.batch {
		r.fields = p.statements[r.sql].fields
		if r.err = p.send(pipeline, setScope, r.zone, timeout); r.err == nil {
			r.err = p.send(pipeline, r.sql, r.args...)
		}
		pipeline.SendPipelineSync()
	}
	if err := pipeline.Flush(); err != nil {
		return 0, err
	}
	for _, r := range p.batch {
		if err := errors.Join(expectResult(), p.receive(pipeline, r)); err != nil {
			return finished, errors.Join(err, pipeline.Close())
		}
		close(r.done)
		finished++
	}
	return finished, pipeline.Close()
}

func (p *pipeline) prepare(sql string) error {
	if p.statements[sql] != nil {
		return nil
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
// It returns an error if the connection is lost.
func (p *pipeline) receive(pipeline *pgconn.Pipeline, r *sharedRead) error {
	for n := 0; ; n++ {
		results, err := pipeline.GetResults()
		switch results := results.(type) {
		case *pgconn.PipelineSync:
			return nil
		case *pgconn.ResultReader:
			if n == 0 {
				_, err = results.Close() // of the scope
			} else {
				err = r.readRows(results)
			}
		}
		var pg *pgconn.PgError
		switch {
		case err == nil:
		case !errors.As(err, &pg), pg.Severity == "FATAL":
			return err
		case pg.Code == "57014", pg.Code == "0A000": // timeout; the schema was changed after the statement was prepared
			r.retry = true
		default:
			r.err = err
		}
	}
}

// readRows copies the rows: the connection reuses its buffer.
func (r *sharedRead) readRows(results *pgconn.ResultReader) (err error) {
	for results.NextRow() {
		values := results.Values()
		size := 0
		for _, value := range values {
			size += len(value)
		}
		row, buffer := make(rawRow, len(values)), make([]byte, 0, size)
		for i, value := range values {
			if value != nil {
				begin := len(buffer)
				buffer = append(buffer, value...)
				row[i] = buffer[begin:len(buffer):len(buffer)]
			}
		}
		r.rows = append(r.rows, row)
	}
	r.tag, err = results.Close()
	return err
}

// A rowReader implements [pgx.Rows] for the copied rows of a shared read.
type rowReader struct {
	read  *sharedRead
	next  int
	types *pgtype.Map
	plans []pgtype.ScanPlan
	err   error
}

// typeMaps are not safe for concurrent use.
var typeMaps = sync.Pool{New: func() any { return pgtype.NewMap() }}

func newRowReader(r *sharedRead) *rowReader {
	return &rowReader{read: r, types: typeMaps.Get().(*pgtype.Map), err: r.err}
}

func (r *rowReader) Next() bool {
	if r.err != nil || r.next >= len(r.read.rows) {
		r.Close()
		return false
	}
	r.next++
	return true
}

func (r *rowReader) Scan(dest ...any) error {
	if len(dest) != len(r.read.fields) {
		return fmt.Errorf("scanning %d columns into %d destinations", len(r.read.fields), len(dest))
	}
	if r.plans == nil { // sqlc scans each row into destinations of the same types
		r.plans = make([]pgtype.ScanPlan, len(dest))
		for i, field := range r.read.fields {
			r.plans[i] = r.types.PlanScan(field.DataTypeOID, field.Format, dest[i])
		}
	}
	for i, value := range r.read.rows[r.next-1] {
		if err := r.plans[i].Scan(value, dest[i]); err != nil {
			r.err = pgx.ScanArgError{ColumnIndex: i, FieldName: r.read.fields[i].Name, Err: err}
			return r.err
		}
	}
	return nil
}

func (r *rowReader) Close() {
	if r.types != nil {
		typeMaps.Put(r.types)
		r.types = nil
	}
	r.next = len(r.read.rows)
}

func (r *rowReader) Err() error                                   { return mapError(r.err) }
func (r *rowReader) CommandTag() pgconn.CommandTag                { return r.read.tag }
func (r *rowReader) FieldDescriptions() []pgconn.FieldDescription { return r.read.fields }
func (r *rowReader) RawValues() [][]byte                          { return r.read.rows[r.next-1] }
func (r *rowReader) Values() ([]any, error)                       { return nil, errors.ErrUnsupported }
func (r *rowReader) Conn() *pgx.Conn                              { return nil }
func (r *rowReader) TypeMap() *pgtype.Map                         { return r.types }

// sharedReads implements sqlc's DBTX for reads that share connections.
type sharedReads struct {
	pipelines *pipelines
	pooled    scoped
}

// Exec is for statements that change rows, which are not run again if a connection is
// lost.
func (s sharedReads) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	return s.pooled.Exec(ctx, sql, args...)
}

func (s sharedReads) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	if r, finished := s.pipelines.read(ctx, s.pooled.zone, sql, args); finished {
		return newRowReader(r), mapError(r.err)
	}
	return s.pooled.Query(ctx, sql, args...)
}

func (s sharedReads) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	if r, finished := s.pipelines.read(ctx, s.pooled.zone, sql, args); finished {
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
