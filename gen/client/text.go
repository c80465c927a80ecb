package client

import (
	"reflect"
	"strconv"
	"strings"
	"unicode/utf8"
)

// notUTF8 returns the path of the first text in the body of a request that is not
// UTF-8, such as "operations.0.path", and reports whether there is one.
// encoding/json would replace its invalid bytes without an error.
func notUTF8(v reflect.Value) (path string, found bool) {
	switch v.Kind() {
	case reflect.String:
		return "", !utf8.ValidString(v.String())
	case reflect.Pointer, reflect.Interface:
		if !v.IsNil() {
			return notUTF8(v.Elem())
		}
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 { // JSON text
			return "", !utf8.Valid(v.Bytes())
		}
		for i := range v.Len() {
			if path, found := notUTF8(v.Index(i)); found {
				return join(strconv.Itoa(i), path), true
			}
		}
	case reflect.Map:
		for entry := v.MapRange(); entry.Next(); {
			if _, found := notUTF8(entry.Key()); found {
				return "", true
			}
			if path, found := notUTF8(entry.Value()); found {
				return join(entry.Key().String(), path), true
			}
		}
	case reflect.Struct:
		for i := range v.NumField() {
			name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",") // none in Nullable
			if path, found := notUTF8(v.Field(i)); found {
				return join(name, path), true
			}
		}
	}
	return "", false
}

func join(name, path string) string { return strings.Trim(name+"."+path, ".") }
