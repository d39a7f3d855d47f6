/* Any bytes to the server's parsers of HTTP: a head, a body in chunks, a query, keys. Refused with a status and a message, or read; cut
 * anywhere the same comes out; nothing is read beyond what was given. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "serve/hosts.h"
#include "serve/http.h"
#include "serve/keys.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void need(bool fine, const char *what) {
  if (fine) return;
  fprintf(stderr, "%s\n", what);
  abort();
}

static void chunks(const char *data, size_t n, size_t step) {
  mn_http_chunks c = {0};
  mn_http_fault fault = {0};
  mn_text body = {0};
  bool done = false;
  size_t at = 0;
  while (at < n && !done) {
    const size_t k = n - at < step ? n - at : step;
    const int64_t taken = mn_http_take_chunks(&c, data + at, k, 4096, &body, &done, &fault);
    if (taken < 0) {
      need(fault.status >= 400 && fault.message, "a refusal without a word");
      break;
    }
    need(taken <= (int64_t)k && (done || taken == (int64_t)k), "more was taken than was there");
    at += (size_t)taken;
  }
  need(body.len <= 4096, "a body above its limit");
  mn_text_free(&body);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  const char *text = (const char *)data;
  mn_http_head h;
  mn_http_fault fault = {0};
  const int64_t taken = mn_http_parse_head(text, size, &h, &fault);
  if (taken < 0) need(fault.status >= 400 && fault.message, "a refusal without a word");
  if (taken > 0) {
    need(taken <= (int64_t)size && h.method && *h.method && h.path && (*h.path == '/' || !strcmp(h.path, "*")), "a head that is none");
    need(!strstr(h.path, "/../") && !(h.chunked && h.length >= 0), "a head that should have been refused");
    free(mn_http_query(h.query, "a"));
    if (h.host) {
      const char *const more[] = {"*.example", h.host};
      need(mn_host_valid(h.host, strlen(h.host)) && mn_host_name(h.host) <= strlen(h.host), "a host that is none");
      mn_host_may(h.host, &h.host, 1, more, 2);
    }
    for (size_t cut = 0; cut + 1 < (size_t)taken; cut += 1 + (size_t)taken / 16) { /* less is not whole */
      mn_http_head part;
      const int64_t some = mn_http_parse_head(text, cut, &part, &fault);
      need(some <= 0, "a part of a head is whole");
    }
    mn_http_head_free(&h);
  }
  chunks(text, size, size ? size : 1), chunks(text, size, 1), chunks(text, size, 3);
  mn_keys *keys;
  if (mn_keys_parse("keys", text, size, 5, &keys) == MN_OK) {
    char *given = malloc(size + 1);
    if (given) memcpy(given, text, size), given[size] = 0;
    need(mn_keys_count(keys) > 0 && (!given || mn_keys_find(keys, given) < mn_keys_count(keys)), "no key");
    free(given);
    mn_keys_spend(keys, 0, 1);
    mn_keys_free(keys);
  }
  return 0;
}
