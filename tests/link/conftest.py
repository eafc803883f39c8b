from link_stage import mosquitto as mosquitto
from link_stage import spy as spy
