// Calls each operation of a generated client (openapi-generator, go) with the examples of the description.
// Arguments: the API's address, a file of calls as tests/clients/calls.py writes it. Prints a JSON object a call.
package main

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"reflect"
	"strings"

	client "example.com/driftline/client"
)

type parameter struct {
	Name, In string
	Value    json.RawMessage
}

type call struct {
	Operation, Tag string
	Parameters     []parameter
	Body           json.RawMessage
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func camel(words string) string {
	made := ""
	for _, word := range strings.FieldsFunc(words, func(r rune) bool { return r == '_' || r == ' ' }) {
		made += strings.ToUpper(word[:1]) + word[1:]
	}
	return made
}

func read(kind reflect.Type, value json.RawMessage) reflect.Value {
	made := reflect.New(kind)
	must(json.Unmarshal(value, made.Interface()))
	return made.Elem()
}

// setter finds the method that takes the body: the one that is no query parameter's.
func setter(request reflect.Value, known map[string]bool) reflect.Value {
	for i := range request.NumMethod() {
		if name := request.Type().Method(i).Name; name != "Execute" && !known[name] {
			return request.Method(i)
		}
	}
	panic("no method takes a body: " + request.Type().Name())
}

func main() {
	content, err := os.ReadFile(os.Args[2])
	must(err)
	var calls []call
	must(json.Unmarshal(content, &calls))
	configuration := client.NewConfiguration()
	configuration.Servers = client.ServerConfigurations{{URL: os.Args[1]}}
	all := reflect.ValueOf(client.NewAPIClient(configuration)).Elem()
	for _, each := range calls {
		method := all.FieldByName(camel(each.Tag) + "API").MethodByName(camel(each.Operation))
		values := []reflect.Value{reflect.ValueOf(context.Background())}
		for _, part := range each.Parameters {
			if part.In == "path" {
				values = append(values, read(method.Type().In(len(values)), part.Value))
			}
		}
		request, known := method.Call(values)[0], map[string]bool{}
		for _, part := range each.Parameters {
			if part.In == "query" {
				known[camel(part.Name)] = true
				set := request.MethodByName(camel(part.Name))
				request = set.Call([]reflect.Value{read(set.Type().In(0), part.Value)})[0]
			}
		}
		if each.Body != nil {
			set := setter(request, known)
			request = set.Call([]reflect.Value{read(set.Type().In(0), each.Body)})[0]
		}
		answers := request.MethodByName("Execute").Call(nil)
		said := map[string]any{"operation": each.Operation, "status": 0, "error": ""}
		if answer, ok := answers[len(answers)-2].Interface().(*http.Response); ok && answer != nil {
			said["status"] = answer.StatusCode
		}
		if err, ok := answers[len(answers)-1].Interface().(error); ok && err != nil {
			said["error"] = err.Error()
		}
		must(json.NewEncoder(os.Stdout).Encode(said))
	}
}
