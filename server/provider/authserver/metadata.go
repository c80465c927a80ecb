package authserver

import (
	"io"
	"net/http"
	"strings"
)

// documents are the metadata of the server (RFC 8414), and of a resource at /mcp that it
// issues tokens for (RFC 9728). URL stands for the URL of the server.
var documents = map[string]string{
	"/.well-known/oauth-authorization-server": `{"issuer":"URL","authorization_endpoint":"URL/authorize","token_endpoint":"URL/token",` +
		`"response_types_supported":["code"],"code_challenge_methods_supported":["S256"],"authorization_response_iss_parameter_supported":true,` +
		`"token_endpoint_auth_methods_supported":["tls_client_auth","client_secret_post","client_secret_basic","private_key_jwt","none"]}`,
	"/.well-known/oauth-protected-resource/mcp": `{"resource":"URL/mcp","authorization_servers":["URL"],"scopes_supported":["read","write"]}`,
}

// Resource returns the URL of the resource whose metadata name the server.
func (s *Server) Resource() string { return s.URL + "/mcp" }

// metadata serves the documents.
func (s *Server) metadata(w http.ResponseWriter, r *http.Request) {
	text, replaced := s.options.Documents[r.URL.Path]
	if !replaced {
		text = documents[r.URL.Path]
	}
	if text == "" {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, strings.ReplaceAll(text, "URL", s.URL))
}
