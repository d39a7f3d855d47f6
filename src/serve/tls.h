/* tls.h - what a server shows of itself over TLS: a certificate, what signed it, and its private key. */
#ifndef MN_SERVE_TLS_H
#define MN_SERVE_TLS_H

#include <event2/bufferevent.h>
#include <openssl/ssl.h>

#include "base/base.h"

/* Of PEM files; the certificate's may be a chain. MN_ERR_CONFIG or MN_ERR_IO: which of the two files does not do, and why. A certificate that is
 * out of its time is used, with a warning. SSL_CTX_free() it. */
mn_status mn_tls_open(const char *cert, const char *key, SSL_CTX **out);
/* A client's connection, whose first message is still to be read. NULL: there is no memory. */
struct bufferevent *mn_tls_accept(SSL_CTX *tls, struct event_base *base, int fd, int flags);

#endif
