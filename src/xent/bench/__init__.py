"""The benchmark: xent timed beside other implementations, in rounds of one sample of each.

`runner` starts one process of `worker` for each peer and case. There `check` compares the results
of both with a computation of its own, and only what passes is timed (`timing`): forward, forward
and backward, and in place, beside the bandwidth floor of the same process. The peak of memory has a
process for each implementation (`memory`). The record (`records`, JSON) says on which `machine`;
`report` and `figure` turn it into tables and a picture. Cases and peers are data (`cases`,
`peers`). Needs `pip install "xent[bench]"`.
"""
