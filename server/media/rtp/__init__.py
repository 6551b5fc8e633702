"""Wire formats of RTP and RTCP, one small file each: parse and serialise, no state but counters, no policy."""
