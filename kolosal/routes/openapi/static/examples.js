// A request as a command for a shell. Knows no page.

/** A command that sends `body` (undefined: none) with `verb` to `url`; `streams`: show the answer as it comes. */
export function command(shell, verb, url, body, streams) {
  return shell === "powershell" ? powershell(verb, url, body, streams) : curl(verb, url, body, streams);
}

function curl(verb, url, body, streams) {
  const words = ["curl"];
  if (streams) words.push("-N");
  if (verb !== (body === undefined ? "get" : "post")) words.push("-X", verb.toUpperCase());
  words.push(quoted(url));
  if (body === undefined) return words.join(" ");
  const text = JSON.stringify(body, null, 2).replaceAll("'", "'\\''");
  return `${words.join(" ")} -H 'Content-Type: application/json' -d '${text}'`;
}

function powershell(verb, url, body, streams) {
  const address = quoted(url);
  const method = verb === "get" ? "" : ` -Method ${verb[0].toUpperCase()}${verb.slice(1)}`;
  if (body === undefined) return `Invoke-RestMethod ${address}${method}`;
  const text = `@'\n${JSON.stringify(body, null, 2)}\n'@`; // nothing is special in it
  if (streams) return `Set-Content body.json ${text} -Encoding utf8\ncurl.exe -N ${address} -d "@body.json"`;
  return `$body = ${text}\nInvoke-RestMethod ${address}${method} -Body $body -ContentType "application/json; charset=utf-8"`;
}

function quoted(url) {
  return /^[\w:/.-]+$/.test(url) ? url : `'${url.replaceAll("'", "%27")}'`;
}
