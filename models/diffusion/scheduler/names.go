package scheduler

import (
	"fmt"
	"slices"
	"strings"
)

// class is a scheduler class of the reference.
type class struct {
	name     string
	flow     bool // flow matching
	defaults func(*Config)
	plan     func(*plan, Options) error // fills in the calls
	build    func(*plan) (sampler, error)
}

func latent(c *Config) { c.BetaStart, c.BetaEnd, c.BetaSchedule = 0.00085, 0.012, "scaled_linear" }

// classes lists the classes, with the defaults that differ from most.
func classes() []class {
	linspace := func(c *Config) { c.Spacing = "linspace" }
	return []class{
		{name: "DDPMScheduler", plan: planDDIM, build: newDDPM, defaults: func(c *Config) { c.ClipSample = true }},
		{name: "DDIMScheduler", plan: planDDIM, build: newDDIM, defaults: func(c *Config) { c.ClipSample, c.SetAlphaToOne = true, true }},
		{name: "PNDMScheduler", plan: planPNDM, build: newPNDM},
		{name: "LMSDiscreteScheduler", plan: planSigmas, build: newLMS, defaults: linspace},
		{name: "EulerDiscreteScheduler", plan: planSigmas, build: newEuler, defaults: linspace},
		{name: "EulerAncestralDiscreteScheduler", plan: planSigmas, build: newEulerAncestral, defaults: linspace},
		{name: "HeunDiscreteScheduler", plan: planHeun, build: newHeun, defaults: linspace},
		{name: "KDPM2DiscreteScheduler", plan: planDPM2, build: newDPM2, defaults: linspace},
		{name: "KDPM2AncestralDiscreteScheduler", plan: planDPM2, build: newDPM2, defaults: linspace},
		{name: "DPMSolverMultistepScheduler", plan: planSolver, build: newMultistep, defaults: func(c *Config) { c.Spacing, c.LowerOrderFinal = "linspace", true }},
		{name: "DPMSolverSinglestepScheduler", plan: planSolver, build: newSinglestep, defaults: linspace},
		{name: "UniPCMultistepScheduler", plan: planSolver, build: newUniPC, defaults: func(c *Config) {
			c.Spacing, c.LowerOrderFinal, c.SolverType = "linspace", true, "bh2"
		}},
		{name: "LCMScheduler", plan: planLCM, build: newLCM, defaults: func(c *Config) { latent(c); c.SetAlphaToOne = true }},
		{name: "TCDScheduler", plan: planLCM, build: newTCD, defaults: func(c *Config) { latent(c); c.SetAlphaToOne = true }},
		{name: "FlowMatchEulerDiscreteScheduler", flow: true, plan: planFlow, build: newEuler},
		{name: "FlowMatchHeunDiscreteScheduler", flow: true, plan: planFlow, build: newHeun},
	}
}

func classOf(name string) (class, error) {
	for _, k := range classes() {
		if k.name == name {
			return k, nil
		}
	}
	return class{}, fmt.Errorf("scheduler: class %q: %w", name, ErrConfig)
}

// named is a scheduler by the name that users know, as a class and what is set in it.
type named struct{ name, class, set string }

// names lists the names in the terms of the literature.
func names() []named {
	return []named{
		{"ddim", "DDIMScheduler", `{}`},
		{"ddim_trailing", "DDIMScheduler", `{"timestep_spacing":"trailing"}`},
		{"ddpm", "DDPMScheduler", `{}`},
		{"dpm2", "KDPM2DiscreteScheduler", `{}`},
		{"dpm2_karras", "KDPM2DiscreteScheduler", `{"use_karras_sigmas":true}`},
		{"dpm2_a", "KDPM2AncestralDiscreteScheduler", `{}`},
		{"dpm2_a_karras", "KDPM2AncestralDiscreteScheduler", `{"use_karras_sigmas":true}`},
		{"dpmpp_2m", "DPMSolverMultistepScheduler", `{}`},
		{"dpmpp_2m_beta", "DPMSolverMultistepScheduler", `{"use_beta_sigmas":true}`},
		{"dpmpp_2m_exponential", "DPMSolverMultistepScheduler", `{"use_exponential_sigmas":true}`},
		{"dpmpp_2m_karras", "DPMSolverMultistepScheduler", `{"use_karras_sigmas":true}`},
		{"dpmpp_2m_sde", "DPMSolverMultistepScheduler", `{"algorithm_type":"sde-dpmsolver++"}`},
		{"dpmpp_2m_sde_karras", "DPMSolverMultistepScheduler", `{"algorithm_type":"sde-dpmsolver++","use_karras_sigmas":true}`},
		{"dpmpp_2s", "DPMSolverSinglestepScheduler", `{}`},
		{"dpmpp_2s_karras", "DPMSolverSinglestepScheduler", `{"use_karras_sigmas":true}`},
		{"dpmpp_3m", "DPMSolverMultistepScheduler", `{"solver_order":3}`},
		{"dpmpp_sde", "DPMSolverSinglestepScheduler", `{"algorithm_type":"sde-dpmsolver++"}`},
		{"dpmpp_sde_karras", "DPMSolverSinglestepScheduler", `{"algorithm_type":"sde-dpmsolver++","use_karras_sigmas":true}`},
		{"euler", "EulerDiscreteScheduler", `{}`},
		{"euler_a", "EulerAncestralDiscreteScheduler", `{}`},
		{"euler_beta", "EulerDiscreteScheduler", `{"use_beta_sigmas":true}`},
		{"euler_exponential", "EulerDiscreteScheduler", `{"use_exponential_sigmas":true}`},
		{"euler_karras", "EulerDiscreteScheduler", `{"use_karras_sigmas":true}`},
		{"euler_trailing", "EulerDiscreteScheduler", `{"timestep_spacing":"trailing"}`},
		{"heun", "HeunDiscreteScheduler", `{}`},
		{"heun_karras", "HeunDiscreteScheduler", `{"use_karras_sigmas":true}`},
		{"lcm", "LCMScheduler", `{}`},
		{"lms", "LMSDiscreteScheduler", `{}`},
		{"lms_karras", "LMSDiscreteScheduler", `{"use_karras_sigmas":true}`},
		{"pndm", "PNDMScheduler", `{"skip_prk_steps":true}`},
		{"tcd", "TCDScheduler", `{}`},
		{"unipc", "UniPCMultistepScheduler", `{}`},
		{"unipc_karras", "UniPCMultistepScheduler", `{"use_karras_sigmas":true}`},
	}
}

// flowNames lists the names for models of flow matching.
func flowNames() []named {
	return []named{
		{"dpmpp_2m", "DPMSolverMultistepScheduler", `{"use_flow_sigmas":true,"prediction_type":"flow_prediction"}`},
		{"euler", "FlowMatchEulerDiscreteScheduler", `{}`},
		{"euler_beta", "FlowMatchEulerDiscreteScheduler", `{"use_beta_sigmas":true}`},
		{"euler_exponential", "FlowMatchEulerDiscreteScheduler", `{"use_exponential_sigmas":true}`},
		{"euler_karras", "FlowMatchEulerDiscreteScheduler", `{"use_karras_sigmas":true}`},
		{"heun", "FlowMatchHeunDiscreteScheduler", `{}`},
		{"unipc", "UniPCMultistepScheduler", `{"use_flow_sigmas":true,"prediction_type":"flow_prediction"}`},
	}
}

// Names returns the names that With takes for models that predict noise, velocity or
// pictures, sorted. Those for flow matching are among them.
func Names() []string {
	var all []string
	for _, n := range names() {
		all = append(all, n.name)
	}
	slices.Sort(all)
	return all
}

// Names returns the names that With takes for this configuration, sorted.
func (c Config) Names() []string {
	var all []string
	for _, n := range c.names() {
		all = append(all, n.name)
	}
	slices.Sort(all)
	return all
}

func (c Config) names() []named {
	if c.isFlow() {
		return flowNames()
	}
	return names()
}

// switches are the settings that tell the names of one class apart: a name sets those it
// means and clears the others. The spacing is the model's, unless a name sets it.
const switches = `{"use_karras_sigmas":false,"use_exponential_sigmas":false,"use_beta_sigmas":false,` +
	`"algorithm_type":"dpmsolver++","solver_order":2}`

// With returns the configuration for another sampler: what the model was trained with is
// kept, and what the file does not say has the defaults of the other class, as the
// reference's from_config does. The error wraps ErrOptions if there is no such name.
func (c Config) With(name string) (Config, error) {
	all := c.names()
	i := slices.IndexFunc(all, func(n named) bool { return n.name == name })
	if i < 0 {
		return Config{}, fmt.Errorf("scheduler: no scheduler %q for this model, want one of %s: %w", name, strings.Join(c.Names(), ", "), ErrOptions)
	}
	with, err := decode(all[i].class, merge(c.raw, switches, all[i].set))
	if err != nil {
		return Config{}, err
	}
	if with.FlowSigmas && !c.FlowSigmas {
		with.FlowShift = c.Shift
	}
	return with, nil
}

// Name returns the name that stands for the configuration, "" if none does.
func (c Config) Name() string {
	best, score := "", -1
	for _, n := range c.names() {
		if n.class != c.Class {
			continue
		}
		with, err := decode(c.Class, merge(c.raw, switches, n.set))
		if err != nil || with.Karras != c.Karras || with.Exponential != c.Exponential || with.Beta != c.Beta ||
			with.Algorithm != c.Algorithm || with.SolverOrder != c.SolverOrder || with.Spacing != c.Spacing {
			continue
		}
		if len(n.set) > score { // the name that says most
			best, score = n.name, len(n.set)
		}
	}
	return best
}
