-- name: ListDeadLetters :many
-- ListDeadLetters returns dead letters newest first, after a position, like ListZones.
SELECT * FROM outbox
WHERE dead_at IS NOT NULL AND (created_at, id) < (@before_time::timestamptz, @before_id::text)
ORDER BY created_at DESC, id DESC
LIMIT @row_limit;

-- name: RearmDeadLetter :one
UPDATE outbox SET dead_at = NULL, attempts = 0 WHERE id = @id AND dead_at IS NOT NULL RETURNING *;

-- name: DeleteDeadLetter :one
DELETE FROM outbox WHERE id = @id AND dead_at IS NOT NULL RETURNING *;
