from qcrd_ray.api import load_recipe as load_recipe
from qcrd_ray.api import load_student as load_student
from qcrd_ray.api import run as run

__version__: str
