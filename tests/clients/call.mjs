// Calls each operation of a generated client (openapi-generator, typescript-fetch) with the examples of the description.
// Arguments: the API's address, a file of calls as tests/clients/calls.py writes it, the compiled client. Prints a JSON
// object a call.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const [url, file, place] = process.argv.slice(2);
const client = createRequire(import.meta.url)(place);
const camel = (words, first) =>
  words.split(/[_ ]/).map((word, i) => (i || first ? word[0].toUpperCase() + word.slice(1) : word)).join("");

for (const { operation, tag, parameters, body } of JSON.parse(readFileSync(file, "utf8"))) {
  const api = new client[`${camel(tag, true)}Api`](new client.Configuration({ basePath: url }));
  const named = Object.fromEntries(parameters.map(({ name, value }) => [name, value]));
  // What a body is called is known to the compiler only: whatever is no parameter is the body.
  const given = new Proxy(named, { get: (known, name) => (name in known ? known[name] : body) });
  const said = { operation, status: 0, error: "" };
  try {
    const answer = await api[`${camel(operation)}Raw`](given);
    said.status = answer.raw.status;
    if ((await answer.value()) == null) said.error = "nothing was read of the answer";
  } catch (error) {
    said.status = error.response?.status ?? 0;
    said.error = String(error);
  }
  console.log(JSON.stringify(said));
}
