package middleware

import (
	"compress/gzip"
	"errors"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"

	"caracal.run/management/gen/code"
)

// readText reads the body of a request, which must have one of the media types, and removes its content coding. The limit
// applies to what is sent and to what it decodes to, so that a small body cannot
// fill the memory. It returns unsupported_media_type, payload_too_large and
// invalid_json or, for a form, invalid_request.
func readText(w http.ResponseWriter, r *http.Request, limit int64, mediaTypes []string) (text []byte, mediaType string, err error) {
	if mediaType, err = checkMediaType(strings.Join(r.Header.Values("Content-Type"), ","), mediaTypes); err != nil {
		return nil, "", err
	}
	gzipped, err := isGzipped(r.Header)
	if err != nil {
		return nil, "", err
	}
	if r.ContentLength > limit {
		return nil, "", code.PayloadTooLarge
	}
	text, err = readAtMost(limit, http.MaxBytesReader(w, r.Body, limit), gzipped)
	switch tooLarge := new(http.MaxBytesError); {
	case errors.As(err, &tooLarge), int64(len(text)) > limit:
		return nil, "", code.PayloadTooLarge
	case err != nil && gzipped:
		return nil, "", malformed(mediaType).At("must be compressed with gzip, as Content-Encoding says")
	case err != nil:
		return nil, "", malformed(mediaType).Because(err) // the client disconnected, was too slow, or sent malformed chunks
	}
	return text, mediaType, nil
}

// malformed returns the error code of a body that cannot be read.
func malformed(mediaType string) code.Code {
	if mediaType == formType {
		return code.InvalidRequest
	}
	return code.InvalidJSON
}

// readAtMost reads and decompresses a body, but no more than one byte above the
// limit.
func readAtMost(limit int64, body io.Reader, gzipped bool) ([]byte, error) {
	if gzipped {
		decompressed, err := gzip.NewReader(body)
		if err != nil {
			return nil, err
		}
		body = decompressed
	}
	return io.ReadAll(io.LimitReader(body, limit+1))
}

// checkMediaType returns the media type of a Content-Type, and unsupported_media_type unless it
// is one of the accepted ones in UTF-8. It is malformed if it was sent twice.
func checkMediaType(contentType string, accepted []string) (string, error) {
	media, params, err := mime.ParseMediaType(contentType)
	switch charset, given := params["charset"]; {
	case err != nil, !slices.Contains(accepted, media):
		return "", code.UnsupportedMediaType.At("must be "+strings.Join(accepted, " or "), "Content-Type")
	case given && !strings.EqualFold(charset, "utf-8") && !strings.EqualFold(charset, "utf8"): // a common alias
		return "", code.UnsupportedMediaType.At("must have the charset utf-8, or none", "Content-Type")
	}
	return media, nil
}

// contentCodings are the registered content codings that this service does not
// accept. Only these are quoted in an error: any other text may be a secret.
var contentCodings = []string{"aes128gcm", "br", "compress", "dcb", "dcz", "deflate", "exi", "pack200-gzip", "x-compress", "zstd"}

// isGzipped reports whether a body is compressed with gzip. It returns
// unsupported_media_type if the body has any other content coding, or several.
func isGzipped(h http.Header) (gzipped bool, err error) {
	const path = "Content-Encoding"
	for coding := range strings.SplitSeq(strings.Join(h.Values(path), ","), ",") {
		coding = strings.ToLower(strings.Trim(coding, " \t")) // RFC 9110, section 8.4.1: case-insensitive
		switch {
		case coding == "", coding == "identity":
		case coding != "gzip" && coding != "x-gzip":
			message := "must be gzip, or absent"
			if slices.Contains(contentCodings, coding) {
				message += ", not " + coding
			}
			return false, code.UnsupportedMediaType.At(message, path)
		case gzipped:
			return false, code.UnsupportedMediaType.At("must be gzip only once", path)
		default:
			gzipped = true
		}
	}
	return gzipped, nil
}
