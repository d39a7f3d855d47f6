/* tls.c - see tls.h. */
#include "serve/tls.h"

#include <errno.h>
#include <event2/bufferevent_ssl.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* OpenSSL has no words for these. Nothing is opened: what a pipe holds is there once. */
static mn_status check_file(const char *option, const char *file) {
  struct stat st;
  if (stat(file, &st) != 0 || access(file, R_OK) != 0) return mn_fail(MN_ERR_IO, "%s %s: %s", option, file, strerror(errno));
  return S_ISDIR(st.st_mode) ? mn_fail(MN_ERR_IO, "%s %s: %s", option, file, strerror(EISDIR)) : MN_OK;
}

static mn_status refuse(const char *option, const char *file) {
  const char *reason = ERR_reason_error_string(ERR_get_error());
  return mn_fail(MN_ERR_CONFIG, "%s %s: OpenSSL says: %s", option, file, reason ? reason : "it cannot be used");
}

/* In place of OpenSSL's own, which asks at the terminal: a server that nobody sits at would wait there for good. */
static int no_pass_phrase(char *to, int n, int writing, void *asked) {
  (void)to, (void)n, (void)writing;
  *(bool *)asked = true;
  return -1;
}

static mn_status read_key(const char *file, EVP_PKEY **out) {
  bool asked = false;
  FILE *f = fopen(file, "r");
  if (!f) return mn_fail(MN_ERR_IO, "--tls-key %s: %s", file, strerror(errno));
  *out = PEM_read_PrivateKey(f, NULL, no_pass_phrase, &asked);
  fclose(f);
  if (!*out && asked)
    return mn_fail(
        MN_ERR_CONFIG,
        "--tls-key %s: the key is encrypted, and a server asks for no pass phrase; `openssl pkey -in %s -out PLAIN` writes one that is not",
        file, file);
  return *out ? MN_OK : refuse("--tls-key", file);
}

static void warn_of_time(const X509 *x, const char *file) {
  if (X509_cmp_current_time(X509_get0_notAfter(x)) < 0)
    mn_log_write(MN_LOG_WARN, "--tls-cert %s: it has expired, clients will refuse it", file);
  if (X509_cmp_current_time(X509_get0_notBefore(x)) > 0)
    mn_log_write(MN_LOG_WARN, "--tls-cert %s: its time has not begun, clients will refuse it", file);
}

static mn_status use_files(SSL_CTX *tls, const char *cert, const char *key) {
  EVP_PKEY *k = NULL;
  ERR_clear_error();
  MN_TRY(check_file("--tls-cert", cert));
  MN_TRY(check_file("--tls-key", key));
  if (SSL_CTX_use_certificate_chain_file(tls, cert) != 1) return refuse("--tls-cert", cert);
  MN_TRY(read_key(key, &k));
  const X509 *x = SSL_CTX_get0_certificate(tls);
  mn_status s = MN_OK;
  if (X509_check_private_key(x, k) != 1)
    s = mn_fail(MN_ERR_CONFIG, "--tls-key %s: it is another key than that of the certificate in %s; a chain begins with the server's own",
                key, cert);
  else if (SSL_CTX_use_PrivateKey(tls, k) != 1) s = refuse("--tls-key", key);
  else warn_of_time(x, cert);
  EVP_PKEY_free(k);
  ERR_clear_error();
  return s;
}

mn_status mn_tls_open(const char *cert, const char *key, SSL_CTX **out) {
  if (!cert || !key) return mn_fail(MN_ERR_CONFIG, "TLS needs both --tls-cert and --tls-key");
  SSL_CTX *tls = SSL_CTX_new(TLS_server_method());
  if (!tls) return MN_ERR_MEMORY;
  SSL_CTX_set_min_proto_version(tls, TLS1_2_VERSION);
  SSL_CTX_set_mode(tls, SSL_MODE_RELEASE_BUFFERS);
  const mn_status s = use_files(tls, cert, key);
  if (s == MN_OK) *out = tls;
  else SSL_CTX_free(tls);
  return s;
}

struct bufferevent *mn_tls_accept(SSL_CTX *tls, struct event_base *base, int fd, int flags) {
  SSL *ssl = SSL_new(tls);
  struct bufferevent *bev = ssl ? bufferevent_openssl_socket_new(base, fd, ssl, BUFFEREVENT_SSL_ACCEPTING, flags) : NULL;
  if (bev) bufferevent_openssl_set_allow_dirty_shutdown(bev, 1);
  else SSL_free(ssl);
  return bev;
}
