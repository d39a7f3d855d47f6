/* hosts.c - see hosts.h. */
#define _GNU_SOURCE /* memrchr */
#include "serve/hosts.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

#include "base/text.h"

enum { MOST_NAME = 255 }; /* of a name in the DNS */

/* ---- the form: RFC 3986, 3.2.2 and 3.2.3 ---- */
static bool of_a_name(unsigned char c) { return isalnum(c) || (c && strchr("-._~%!$&'()*+,;=", c)); }

/* Where the name ends, and the port begins with its colon. */
static size_t end_of_name(const char *host, size_t n) {
  const char *end = n && host[0] == '[' ? memchr(host, ']', n) : memchr(host, ':', n);
  if (n && host[0] == '[') return end ? (size_t)(end - host) + 1 : n;
  return end ? (size_t)(end - host) : n;
}

bool mn_host_valid(const char *host, size_t n) {
  const size_t name = end_of_name(host, n);
  const bool brackets = n && host[0] == '[';
  if (brackets && (name < 4 || host[name - 1] != ']')) return false;
  for (size_t i = brackets; i < name - brackets; i++)
    if (!of_a_name((unsigned char)host[i]) && !(brackets && host[i] == ':')) return false;
  if (name < n && host[name] != ':') return false;
  for (size_t i = name + 1; i < n; i++)
    if (!isdigit((unsigned char)host[i])) return false;
  return n <= name + 6;
}

size_t mn_host_name(const char *host) {
  const size_t n = end_of_name(host, strlen(host));
  return n && host[n - 1] == '.' ? n - 1 : n;
}

/* ---- whose it is ---- */
static bool ends_with(const char *name, size_t n, const char *end) {
  const size_t m = strlen(end);
  return n >= m && !strncasecmp(name + n - m, end, m);
}

/* Browsers and resolvers take a name whose last part is a number for an address (127.1, 0x7f.1). */
static bool is_number(const char *s, size_t n) {
  if (n > 2 && s[0] == '0' && (s[1] == 'x' || s[1] == 'X')) return true;
  for (size_t i = 0; i < n; i++)
    if (!isdigit((unsigned char)s[i])) return false;
  return n > 0;
}

bool mn_host_is_nobodys(const char *name, size_t n) {
  static const char *const all[] = {".localhost", ".local", ".internal", ".home.arpa"};
  const char *dot = memrchr(name, '.', n);
  if (!dot || name[0] == '[' || is_number(dot + 1, (size_t)(name + n - dot - 1))) return true;
  for (size_t i = 0; i < sizeof all / sizeof *all; i++)
    if (ends_with(name, n, all[i])) return true;
  return false;
}

static void lower(const char *s, size_t n, char out[MOST_NAME + 1]) {
  for (size_t i = 0; i < n; i++) out[i] = (char)tolower((unsigned char)s[i]);
  out[n] = 0;
}

bool mn_host_may(const char *host, const char *const *own, int n_own, const char *const *more, int n_more) {
  char name[MOST_NAME + 1], pattern[MOST_NAME + 1];
  const size_t n = host ? mn_host_name(host) : 0;
  if (!n || mn_host_is_nobodys(host, n)) return true;
  if (n > MOST_NAME) return false;
  lower(host, n, name);
  for (int i = 0; i < n_own; i++)
    if (own[i] && strlen(own[i]) == n && !strncasecmp(own[i], name, n)) return true;
  for (int i = 0; i < n_more; i++) {
    const size_t m = strlen(more[i]);
    if (m > MOST_NAME) continue;
    lower(more[i], m, pattern);
    if (mn_name_matches(pattern, name)) return true;
  }
  return false;
}
