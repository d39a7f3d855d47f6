/* hosts.h - by which names a server may be asked. A page of another site can let its own name lead to this machine (DNS rebinding), and is
 * then of no other origin for a browser: only the name that it asks by, in the header Host, tells it apart. */
#ifndef MN_SERVE_HOSTS_H
#define MN_SERVE_HOSTS_H

#include "base/base.h"

/* Does host[0..n), as a request says it, have a form, NAME or NAME:PORT? "" has one; an IPv6 address stands in brackets. */
bool mn_host_valid(const char *host, size_t n);
/* How many bytes of a valid one are its name, without the port and a dot at the end. */
size_t mn_host_name(const char *host);
/* Is that name one that the public DNS gives to nobody: an address, a name without a dot, one below localhost, local, internal or
 * home.arpa? */
bool mn_host_is_nobodys(const char *name, size_t n);
/* May a server be asked by this Host? "" and NULL are said by no browser. own: names of the server's, NULL where it has fewer; more: patterns
 * of names (* and ? stand for any signs). Letters have no case. */
bool mn_host_may(const char *host, const char *const *own, int n_own, const char *const *more, int n_more);

#endif
