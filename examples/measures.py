"""Information measures of distributions: how surprising, how different, how much one tells."""

import numpy as np

from xent import info

weather = np.array([0.5, 0.25, 0.25])  # sun, cloud, rain: how often each comes
forecast = np.array([0.25, 0.25, 0.5])  # how often somebody says it comes

print("bits of information in sun, cloud, rain:", info.information(weather, base=2))
print(f"entropy of the weather:   {info.entropy(weather, base=2):.3f} bits")
print(f"cross entropy:            {info.cross_entropy(weather, forecast, base=2):.3f} bits")
print(f"what the forecast costs:  {info.kl_divergence(weather, forecast, base=2):.3f} bits")
print(f"Jensen-Shannon:           {info.js_divergence(weather, forecast, base=2):.3f} bits")
print(f"perplexity:               {info.perplexity(info.entropy(weather)):.3f} kinds of day")

# How often each weather (row) meets an umbrella left at home and one taken (column).
met = np.array([[0.45, 0.05], [0.15, 0.10], [0.02, 0.23]])
print(f"an umbrella tells         {info.mutual_information(met, base=2):.3f} bits of the weather")

temperature = info.Normal(mean=15.0, std=4.0)  # degrees
print(f"entropy of N(15, 4²):     {temperature.entropy():.4f} nats")
