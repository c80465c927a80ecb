package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"caracal.run/management/server"
)

func auditCommand(a *apiCaller) *cobra.Command {
	cmd := &cobra.Command{Use: "audit", Short: "Export, verify and explain the audit logs of a zone", Example: "  caracald audit export --file audit.ndjson\n  caracald audit verify audit.ndjson"}
	cmd.AddCommand(auditExportCommand(a), auditHeadCommand(a), auditVerifyCommand(), auditExplainCommand(a))
	return cmd
}

func auditVerifyCommand() *cobra.Command {
	var o verifyOptions
	cmd := &cobra.Command{
		Use:   "verify FILE",
		Short: "Verify an export of an audit log, without the service",
		Long: withSettings(`Verifies an export of audit entries or of authorization audit events with format=ndjson:
that no row was changed, deleted, inserted or moved since it was hashed. It prints the
first line that does not fit and exits with code 1, or prints what it could not verify.
FILE - is the standard input.`, server.UsedByAuditVerify),
		Example: `  caracald audit export --file audit.ndjson
  AUDIT_HMAC_KEY_FILE=audit-hmac-key caracald audit verify audit.ndjson`,
		Args: arguments("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return auditVerify(cmd.InOrStdin(), cmd.OutOrStdout(), args[0], o)
		},
	}
	flags := cmd.Flags()
	flags.BoolVar(&o.filtered, "filtered", false, "accept that rows are missing between those in the file, because the export was filtered or retention has deleted them")
	flags.BoolVar(&o.redacted, "redacted", false, "accept audit events with redacted values, whose content cannot be verified")
	flags.StringVar(&o.headFile, "head", "", "`file` with the head of the log that audit head printed, which the export must contain")
	return cmd
}

// auditVerify verifies an export of an audit log without the service.
func auditVerify(in io.Reader, out io.Writer, name string, o verifyOptions) (err error) {
	if o.key, err = server.LoadAuditKey(os.Environ()); err != nil {
		return err
	}
	if name != "-" {
		file, err := os.Open(name)
		if err != nil {
			return err
		}
		defer file.Close()
		in = file
	}
	v, err := readExport(in, o)
	if err != nil {
		return err
	}
	if err := v.check(); err != nil {
		return err
	}
	v.report(out)
	if o.key == nil {
		fmt.Fprintln(out, "Not verified: the signatures, because AUDIT_HMAC_KEY is not set. Without them, somebody could have computed all hashes again.")
	}
	if o.filtered {
		fmt.Fprintln(out, "Not verified: whether rows are missing between those in the file, because of --filtered.")
	}
	if o.headFile == "" {
		fmt.Fprintln(out, "Not verified: whether the log has rows after the last one in the file. A head that was kept shows it (--head).")
	}
	return nil
}

// verifyOptions say how to verify an export.
type verifyOptions struct {
	key                []byte
	filtered, redacted bool
	headFile           string
}

// An exportVerifier verifies the lines of an export: first each line, then the chain of
// each zone, because the lines are in the order of the times, not of the numbers.
type exportVerifier interface {
	readLine(number int, line []byte) error
	check() error
	report(out io.Writer) // what was verified
}

func lineError(line int, format string, args ...any) error {
	return fmt.Errorf("line %d: %s", line, fmt.Sprintf(format, args...))
}

// readExport reads and verifies every line. The first one shows which log it is.
func readExport(in io.Reader, o verifyOptions) (exportVerifier, error) {
	lines := bufio.NewReaderSize(in, 1<<20)
	var v exportVerifier
	for number := 1; ; number++ {
		line, err := lines.ReadBytes('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		last := err != nil
		if v == nil {
			if v, err = newExportVerifier(line, o); err != nil {
				return nil, err
			}
		}
		if len(line) > 0 {
			if err := v.readLine(number, line); err != nil {
				return nil, err
			}
		}
		if last {
			return v, nil
		}
	}
}

// newExportVerifier returns the verifier of the log that a line is of.
func newExportVerifier(line []byte, o verifyOptions) (exportVerifier, error) {
	var event struct {
		ContentSHA256 *string `json:"content_sha256"`
	}
	if json.Unmarshal(line, &event) == nil && event.ContentSHA256 != nil {
		return newEventVerifier(o)
	}
	return newEntryVerifier(o)
}

// readHead decodes the head in a file. It does nothing if there is no file.
func readHead(name string, head any) error {
	if name == "" {
		return nil
	}
	text, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(head); err != nil {
		return fmt.Errorf("%s: not a head of this log: %w", name, err)
	}
	return nil
}
