package server

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"errors"
	"html/template"
	"net/http"
	"strconv"

	"caracal.run/management/gen/code"
	"caracal.run/management/server/middleware"
	"caracal.run/management/server/problem"
)

// A grantPage shows a user in a browser how the authorization of a provider grant
// ended. The page contains everything that it needs, and no script.
type grantPage struct {
	Title, Sentence string
	Mood            string // good or bad
	RequestID       string
	status          int
}

var (
	//go:embed grant_page.html
	grantPageText string
	//go:embed grant_page.css
	grantPageStyle string

	grantPageTemplate = template.Must(template.New("page").Parse(grantPageText))
	grantPagePolicy   = "default-src 'none'; style-src 'sha256-" + hashOf(grantPageStyle) + "'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

func hashOf(text string) string {
	sum := sha256.Sum256([]byte(text))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// Style is the style sheet, of which the policy contains the hash.
func (grantPage) Style() template.CSS { return template.CSS(grantPageStyle) }

var connectedPage = grantPage{
	Title: "Connected", Sentence: "Your account is connected.", Mood: "good", status: http.StatusCreated,
}

// VisitCompleteProviderGrantResponse writes the page.
func (p grantPage) VisitCompleteProviderGrantResponse(w http.ResponseWriter) error {
	var text bytes.Buffer
	if err := grantPageTemplate.Execute(&text, p); err != nil {
		return err
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", grantPagePolicy)
	h.Set("Content-Length", strconv.Itoa(text.Len()))
	w.WriteHeader(p.status)
	_, err := w.Write(text.Bytes())
	return err
}

// writeErrorPage writes the error of a request as a page if the request prefers HTML,
// and reports whether it did. An invalid path and internal errors remain JSON.
func writeErrorPage(w http.ResponseWriter, r *http.Request, err error) bool {
	errCode := problem.Code(err)
	info := middleware.RequestInfoFrom(r.Context())
	if !info.WantsHTML || errCode == code.InvalidParams || errCode == code.InternalError {
		return false
	}
	entry := code.Table[errCode]
	page := grantPage{Title: "Authorization failed", Sentence: entry.Sentence, Mood: "bad", RequestID: info.RequestID, status: entry.Status}
	var codeErr *code.Error
	if errors.As(err, &codeErr) {
		page.Sentence = cmp.Or(codeErr.Sentence, page.Sentence)
	}
	switch errCode {
	case code.OAuthStateExpired, code.OAuthStateInvalid:
		page.Title = "Authorization expired"
	case code.ProviderOAuthDenied:
		page.Title = "Access denied"
		page.Sentence, _ = codeErr.Fields["detail"].(string)
	}
	problem.SetRetryAfter(w.Header(), errCode)
	_ = page.VisitCompleteProviderGrantResponse(w) // fails only if the client has disconnected
	return true
}
