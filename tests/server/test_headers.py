"""The security headers, as text (SECURITY row 21)."""

import json
import re

from server.headers import PERMISSIONS_POLICY, base_headers, content_security_policy
from server.signalling.pages import _script_data


def test_permissions():
    allowed = set(re.findall(r"([\w-]+)=\(self\)", PERMISSIONS_POLICY))
    assert {"camera", "microphone", "display-capture", "autoplay", "fullscreen", "picture-in-picture"} <= allowed
    assert "screen-wake-lock" in allowed
    assert allowed.isdisjoint(re.findall(r"([\w-]+)=\(\)", PERMISSIONS_POLICY))
    assert "geolocation=()" in PERMISSIONS_POLICY and "*" not in PERMISSIONS_POLICY


def test_socket_origin_follows_the_page():
    assert "connect-src 'self' wss://video.example.org;" in content_security_policy("https://video.example.org")


def test_script_data_cannot_leave_its_element():
    text = _script_data({"name": "</script><!--<script>&\u2028"})
    assert "<" not in text and ">" not in text
    assert json.loads(text) == {"name": "</script><!--<script>&\u2028"}


def test_hsts_only_over_https():
    assert "Strict-Transport-Security" in base_headers("https://video.example.org")
    assert "Strict-Transport-Security" not in base_headers("http://localhost:8080")
