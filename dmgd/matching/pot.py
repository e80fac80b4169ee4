"""POT, as `ot`, without those of its array libraries that nothing here uses.

POT loads JAX, CuPy and TensorFlow where they are installed, and to see whose a tensor is it asks JAX before torch, for
an array on the GPU, of whose memory JAX then takes three quarters. Whoever wants them for other work imports `ot`
before dmgd.
"""

import os

_UNUSED = [f"POT_BACKEND_DISABLE_{name}" for name in ("JAX", "CUPY", "TENSORFLOW")]
_kept = {name: os.environ.get(name) for name in _UNUSED}
os.environ.update(dict.fromkeys(_UNUSED, "1"))
try:
    import ot as ot
    from ot.batch import solve_batch as solve_batch
finally:
    for _name, _value in _kept.items():
        if _value is None:
            os.environ.pop(_name, None)
        else:
            os.environ[_name] = _value
