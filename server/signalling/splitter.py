"""nginx in front, so that pages and TURN share one address and one port: its configuration. Sans-IO.

Some clinics let nothing out but TCP to port 443. The pages are there; so must be TURN. Both speak TLS, and the first
message of TLS names the server that the client wants (SNI, RFC 6066 section 3), so nginx reads that name and no more:

                              ┌ turn.host ─> 127.0.0.2:inner_port ─────── still TLS ──> coturn, turn.tls_port
    TCP 443 ─ ssl_preread ────┤ (PROXY protocol on both ways)
                              └ the rest ──> 127.0.0.1:inner_port ─ TLS ends, HTTP ──> server, http.port

The PROXY protocol carries the client's address to the inner half of nginx, which tells the server in X-Forwarded-For
(`http.trusted_proxies` must name 127.0.0.1) and takes it off before coturn, which knows only its binary form.
"""

from __future__ import annotations

from ipaddress import ip_address
from string import Template
from urllib.parse import urlsplit

from server.config import Config
from server.errors import ConfigError

_TEMPLATE = Template("""\
# Written by `colloque turn nginx`; change the settings instead. A whole configuration: `nginx -c THIS_FILE`.
load_module /usr/lib/nginx/modules/ngx_stream_module.so;
user www-data;
worker_processes auto;
worker_rlimit_nofile 131072;
# Only why it does not start: what comes below that level holds addresses of clients.
error_log stderr emerg;

events {
    worker_connections 32768;
}

stream {
    map $$ssl_preread_server_name $$colloque_inside {
        $turn_host 127.0.0.2:$inner_port;
        default 127.0.0.1:$inner_port;
    }
    limit_conn_zone $$binary_remote_addr zone=colloque_address:10m;

    server {
$listen
        ssl_preread on;
        preread_timeout ${header_timeout}s;
        # WebSockets, and TURN beside them: twice what the server itself takes from one address.
        limit_conn colloque_address $connections_per_address;
        proxy_connect_timeout 5s;
        # A TURN allocation in reserve is silent until its refresh, within 3 minutes.
        proxy_timeout 5m;
        proxy_protocol on;
        proxy_pass $$colloque_inside;
    }

    server {
        listen 127.0.0.2:$inner_port proxy_protocol;
        proxy_connect_timeout 5s;
        proxy_timeout 5m;
        proxy_pass $coturn;
    }
}

http {
    access_log off;
    server_tokens off;
    client_header_timeout ${header_timeout}s;
    client_body_timeout ${header_timeout}s;
    keepalive_timeout ${header_timeout}s;
    client_max_body_size 256k;

    map $$http_upgrade $$colloque_connection {
        default upgrade;
        "" "";
    }

    server {
        listen 127.0.0.1:$inner_port ssl proxy_protocol;
        server_name $pages_host;
        set_real_ip_from 127.0.0.1;
        real_ip_header proxy_protocol;

        ssl_certificate $tls_cert;
        ssl_certificate_key $tls_key;
        ssl_protocols TLSv1.2 TLSv1.3;
        ssl_ciphers ECDHE+AESGCM:ECDHE+CHACHA20;
        ssl_session_cache shared:colloque:10m;
        ssl_session_tickets off;

        location / {
            proxy_pass http://$server;
            proxy_http_version 1.1;
            proxy_set_header Host $$host;
            proxy_set_header Upgrade $$http_upgrade;
            proxy_set_header Connection $$colloque_connection;
            # Replaced, not appended to: what the client claims about itself is not believed.
            proxy_set_header X-Forwarded-For $$remote_addr;
            proxy_set_header X-Forwarded-Proto https;
        }
    }
}
""")


def render_nginx(config: Config) -> str:
    """Return the whole configuration of the nginx in front.

    Raises:
        ConfigError: A setting without which one port cannot serve both; says which.
    """
    turn, splitter = config.turn, config.splitter
    pages_host = urlsplit(config.http.public_url).hostname or ""
    if not _is_name(turn.host) or not _is_name(pages_host) or turn.host == pages_host:
        raise ConfigError(
            "one port for pages and TURN needs two names, not addresses: the one in `http.public_url` and `turn.host`"
        )
    if splitter.tls_cert is None or splitter.tls_key is None:
        raise ConfigError("`splitter.tls_cert` and `splitter.tls_key` are missing: nginx serves the pages with them")
    if turn.tls_cert is None or turn.tls_key is None:
        raise ConfigError("`turn.tls_cert` and `turn.tls_key` are missing: coturn ends TLS for its own name")
    if config.http.tls_cert is not None:
        raise ConfigError("`http.tls_cert` must be empty: behind nginx the server speaks plain HTTP on loopback")
    if not any(proxy.startswith("127.") for proxy in config.http.trusted_proxies):
        raise ConfigError("`http.trusted_proxies` must name 127.0.0.1, or every visitor looks like nginx")
    listen = [_endpoint(address, splitter.port) for address in splitter.addresses] or [
        str(splitter.port), f"[::]:{splitter.port}"
    ]  # fmt: skip
    return _TEMPLATE.substitute(
        listen="\n".join(f"        listen {endpoint};" for endpoint in listen),
        turn_host=turn.host,
        pages_host=pages_host,
        inner_port=splitter.inner_port,
        coturn=_endpoint((turn.listen_addresses or ("127.0.0.1",))[0], turn.tls_port),
        server=_endpoint(config.http.host, config.http.port),
        header_timeout=f"{config.http.header_timeout_s:.0f}",
        connections_per_address=2 * config.http.max_connections_per_address,
        tls_cert=splitter.tls_cert,
        tls_key=splitter.tls_key,
    )


def _is_name(host: str) -> bool:
    """Whether `host` is a name: TLS names no server that is called by address."""
    try:
        ip_address(host)
    except ValueError:
        return bool(host)
    return False


def _endpoint(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
