package servertest

import (
	"bytes"
	"crypto/sha256"
	"encoding/csv"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// isExport reports whether a response is an export of a list, which package
// openapi3filter cannot validate.
func isExport(resp *http.Response) bool {
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	return kind == "text/csv" || kind == "application/x-ndjson"
}

// validateExport validates the body and the trailer of an export: the columns of CSV
// (x-columns), or each line of JSON.
func validateExport(op Operation, resp *http.Response, body []byte) error {
	kind, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if err != nil {
		return err
	}
	response := op.Responses.Status(resp.StatusCode)
	if response == nil || response.Value.Content[kind] == nil {
		return fmt.Errorf("the operation does not declare %d with %s", resp.StatusCode, kind)
	}
	media := response.Value.Content[kind]
	if !strings.HasPrefix(resp.Header.Get("Content-Disposition"), "attachment; filename=") {
		return errors.New("the name of the file is missing")
	}
	if resp.Request != nil && resp.Request.Method == http.MethodHead {
		return nil
	}
	rows := 0
	if kind == "text/csv" {
		rows, err = validateCSV(columnsOf(media.Extensions["x-columns"], resp.Request), body)
	} else {
		for line := range bytes.Lines(body) {
			rows++
			var value any
			if err := json.Unmarshal(line, &value); err != nil {
				return fmt.Errorf("line %d: %w", rows, err)
			}
			if err := media.Schema.Value.VisitJSON(value); err != nil || !bytes.HasSuffix(line, []byte("}\n")) {
				return fmt.Errorf("line %d: %w", rows, errors.Join(err, fmt.Errorf("%q", line)))
			}
		}
	}
	if err != nil {
		return err
	}
	sum := sha256.Sum256(body)
	for name, want := range map[string]string{"X-Export-Rows": strconv.Itoa(rows), "X-Export-SHA256": hex.EncodeToString(sum[:])} {
		if got := resp.Trailer.Get(name); got != want {
			return fmt.Errorf("the trailer has %s %q, want %q", name, got, want)
		}
	}
	return nil
}

// columnsOf returns the columns that a request selects (fields), or those that the spec
// declares.
func columnsOf(declared any, r *http.Request) (columns []string) {
	if r != nil && r.URL.Query().Has("fields") {
		return strings.FieldsFunc(r.URL.Query().Get("fields"), func(c rune) bool { return c == ',' || c == ' ' })
	}
	list, _ := declared.([]any)
	for _, name := range list {
		columns = append(columns, fmt.Sprint(name))
	}
	return columns
}

func validateCSV(columns []string, body []byte) (rows int, err error) {
	if len(body) == 0 || !bytes.HasSuffix(body, []byte("\r\n")) {
		return 0, errors.New("the last line has no end")
	}
	lines, err := csv.NewReader(bytes.NewReader(body)).ReadAll() // all with the same number of cells
	if err != nil {
		return 0, err
	}
	if !slices.Equal(lines[0], columns) {
		return 0, fmt.Errorf("the columns are %q, want %q", lines[0], columns)
	}
	for i, line := range lines {
		for _, cell := range line {
			if cell != "" && strings.ContainsRune("=+-@\t\r", rune(cell[0])) {
				return 0, fmt.Errorf("line %d has the formula %q", i+1, cell)
			}
		}
	}
	return len(lines) - 1, nil
}
