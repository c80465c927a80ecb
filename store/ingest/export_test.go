package ingest

import "context"

// Upkeep does what the ingester does periodically.
func (i *Ingester) Upkeep(ctx context.Context) error { return i.upkeep(ctx) }
