package server_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
)

// TestReturnDoesNotDependOnEvaluationOrder finds statements such as
//
//	return x, json.Unmarshal(text, &x)
//	return c, c.validate()
//
// The language does not specify whether x is read before or after the call
// changes it (Go specification, "Order of evaluation").
func TestReturnDoesNotDependOnEvaluationOrder(t *testing.T) {
	t.Parallel()
	files := 0
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() && (d.Name() == ".git" || d.Name() == "gen") {
			if err == nil {
				err = filepath.SkipDir
			}
			return err
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		files++
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, path, nil, 0)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if ret, ok := n.(*ast.ReturnStmt); ok {
				for _, name := range readAndChanged(ret) {
					t.Errorf("%s: the return statement reads %s and may change it", set.Position(ret.Pos()), name)
				}
			}
			return true
		})
		return nil
	})
	if err != nil || files < 100 {
		t.Fatalf("%d files, %v", files, err)
	}
}

// readAndChanged returns the variables that a return statement lists as results
// and also passes by address to a call or calls a method of without arguments.
func readAndChanged(ret *ast.ReturnStmt) (names []string) {
	read := map[string]bool{}
	for _, result := range ret.Results {
		if id, ok := result.(*ast.Ident); ok {
			read[id.Name] = true
		}
	}
	for _, result := range ret.Results {
		call, ok := result.(*ast.CallExpr)
		if !ok {
			continue
		}
		ast.Inspect(call, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncLit:
				return false
			case *ast.UnaryExpr:
				if id, ok := n.X.(*ast.Ident); ok && n.Op == token.AND && read[id.Name] {
					names = append(names, id.Name)
				}
			}
			return true
		})
		if method, ok := call.Fun.(*ast.SelectorExpr); ok && len(call.Args) == 0 {
			if id, ok := method.X.(*ast.Ident); ok && read[id.Name] {
				names = append(names, id.Name)
			}
		}
	}
	return names
}
