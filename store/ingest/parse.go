package ingest

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"caracal.run/management/store"
	"caracal.run/management/store/auditchain"
)

// Fields of an entry of the stream.
const (
	dataField      = "data" // the event as JSON
	signatureField = "sig"
)

const (
	maxDataBytes = 256 << 10
	maxTextBytes = 512            // of a text that is a column
	maxAhead     = 24 * time.Hour // of an event's time, because clocks differ
)

// parse verifies and parses an entry. If it cannot be stored, it sets the reason.
func (i *Ingester) parse(e *entry, now time.Time) {
	if e.deleted {
		i.log.Error("audit event was removed from the stream before it was acknowledged", "id", e.ID)
		return
	}
	data, ok := e.Values[dataField].(string)
	if !ok {
		e.reason = "missing_data_field"
		return
	}
	signature, _ := e.Values[signatureField].(string)
	if i.config.Key != nil && !validSignature(i.config.Key, data, signature) {
		i.counts.hmacFailures.Add(1)
		e.reason = "hmac_verify_failed"
		return
	}
	oldest := now.AddDate(0, 0, -i.retentionDays)
	event, err := parseEvent(data, oldest, now.Add(maxAhead))
	if err != nil {
		i.counts.parseErrors.Add(1)
		e.reason = "json_parse_error:" + reasonText(err)
		return
	}
	event.Signature = signature
	if i.config.Key == nil {
		event.Signature = "" // not verified, so it could be any text
	}
	e.event = event
}

// sign returns the signature of an event's JSON text, in lower-case hexadecimal.
func sign(key []byte, data string) string { return hex.EncodeToString(mac(key, data)) }

func mac(key []byte, data string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(data))
	return h.Sum(nil)
}

func validSignature(key []byte, data, signature string) bool {
	decoded, err := hex.DecodeString(signature)
	return err == nil && hmac.Equal(decoded, mac(key, data))
}

var idPattern = regexp.MustCompile(`^[A-Za-z0-9_.\-:]{1,128}$`)

// parseEvent parses the JSON text of an event. It ignores unknown fields.
func parseEvent(data string, oldest, latest time.Time) (store.AuditEvent, error) {
	var e store.AuditEvent
	if len(data) > maxDataBytes {
		return e, fmt.Errorf("longer than %d bytes", maxDataBytes)
	}
	object, err := auditchain.Parse([]byte(data))
	if err != nil {
		return e, err
	}
	if !object.IsObject() {
		return e, errors.New("must be an object")
	}
	for _, field := range []struct {
		name     string
		text     *string
		required bool
	}{
		{"id", &e.ID, true}, {"zone_id", &e.ZoneID, true}, {"event_type", &e.EventType, false}, {"request_id", &e.RequestID, false},
		{"decision", &e.Decision, false}, {"policy_set_id", &e.PolicySetID, false}, {"policy_set_version_id", &e.PolicySetVersionID, false},
		{"manifest_sha", &e.ManifestSHA, false}, {"evaluation_status", &e.EvaluationStatus, false},
	} {
		if *field.text, err = textField(object, field.name, field.required); err != nil {
			return e, err
		}
	}
	for _, field := range [][2]string{{"id", e.ID}, {"zone_id", e.ZoneID}} {
		if !idPattern.MatchString(field[1]) {
			return e, fmt.Errorf("%s: must have 1 to 128 of the characters _ . - : and letters and digits", field[0])
		}
	}
	occurredAt, err := textField(object, "occurred_at", true)
	if err != nil {
		return e, err
	}
	if err := e.OccurredAt.UnmarshalText([]byte(occurredAt)); err != nil {
		return e, errors.New("occurred_at: must be a date-time according to RFC 3339")
	}
	e.OccurredAt = e.OccurredAt.UTC().Truncate(time.Microsecond)
	switch {
	case e.OccurredAt.Before(oldest):
		return e, errors.New("occurred_at: must not be before the retention period")
	case e.OccurredAt.After(latest):
		return e, errors.New("occurred_at: must not be in the future")
	}
	for _, field := range []struct {
		name, kind string
		isValid    func(auditchain.Value) bool
		text       *string
	}{
		{"determining_policies_json", "an array", auditchain.Value.IsArray, &e.DeterminingPolicies},
		{"diagnostics_json", "an array", auditchain.Value.IsArray, &e.Diagnostics},
		{"metadata_json", "an object", auditchain.Value.IsObject, &e.Metadata},
	} {
		value := object.Field(field.name)
		if value.IsNull() {
			continue
		}
		if !field.isValid(value) {
			return e, fmt.Errorf("%s: must be %s or null", field.name, field.kind)
		}
		*field.text = value.Canonical()
	}
	e.Labels = labels(object.Field("metadata_json"))
	return e, nil
}

// textField returns a text field of an event. A missing field and null are empty.
func textField(object auditchain.Value, name string, required bool) (string, error) {
	value := object.Field(name)
	text, isText := value.Text()
	switch {
	case !isText && !value.IsNull():
		return "", fmt.Errorf("%s: must be a string", name)
	case required && text == "":
		return "", fmt.Errorf("%s: must not be empty", name)
	case len(text) > maxTextBytes:
		return "", fmt.Errorf("%s: must be at most %d bytes", name, maxTextBytes)
	case strings.ContainsFunc(text, func(r rune) bool { return r < ' ' }):
		return "", fmt.Errorf("%s: must not contain control characters", name)
	}
	return text, nil
}

// labels returns the labels of an event by which it can be listed, each once.
func labels(metadata auditchain.Value) []string {
	const maxLength = 64 // of a filter
	var all []string
	for _, element := range metadata.Field("agent_labels").Elements() {
		if label, ok := element.Text(); ok && label != "" && len([]rune(label)) <= maxLength {
			all = append(all, label)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}
