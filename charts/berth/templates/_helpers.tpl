{{/* The name of everything: the release's own name where that says what it is. */}}
{{- define "berth.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride }}
{{- else if contains .Chart.Name .Release.Name }}
{{- .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "berth.operator" -}}
{{ include "berth.fullname" . }}-operator
{{- end }}

{{- define "berth.agent" -}}
{{ include "berth.fullname" . }}-agent
{{- end }}

{{- define "berth.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}
{{- .Values.serviceAccount.name | default (include "berth.operator" .) }}
{{- else }}
{{- .Values.serviceAccount.name | default "default" }}
{{- end }}
{{- end }}

{{- define "berth.agentNamespace" -}}
{{ .Values.agent.namespace.name | default (include "berth.agent" .) }}
{{- end }}

{{/* The only namespace to serve, or nothing. */}}
{{- define "berth.watchNamespace" -}}
{{- if .Values.watchNamespace }}
{{- .Values.watchNamespace }}
{{- else if not .Values.clusterObjects }}
{{- .Release.Namespace }}
{{- end }}
{{- end }}

{{/* What tells Pods of a component apart: (dict "root" $ "component" "operator"). Models let Pods of app.kubernetes.io/name: berth reach them. */}}
{{- define "berth.selectorLabels" -}}
app.kubernetes.io/name: berth
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* Labels of Pods: none that changes with the chart's version, which would restart them. */}}
{{- define "berth.podLabels" -}}
{{ include "berth.selectorLabels" . }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Labels of an object of the whole release, or of one component of it: $, or (dict "root" $ "component" "operator"). */}}
{{- define "berth.labels" -}}
{{- $root := .root | default . -}}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
app.kubernetes.io/name: berth
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
{{- with .component }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- with $root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "berth.image" -}}
{{- with .Values.image -}}
{{ with .registry }}{{ . }}/{{ end }}{{ .repository }}
{{- if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end }}
{{- end }}

{{/* Whether an object of a kind that is not Kubernetes' own is rendered: (dict "root" $ "enabled" … "api" "monitoring.coreos.com/v1"). */}}
{{- define "berth.rendersMonitoring" -}}
{{- $mode := .root.Values.serviceMonitor.renderMode }}
{{- $served := .root.Capabilities.APIVersions.Has "monitoring.coreos.com/v1" }}
{{- if .enabled }}
{{- if or $served (eq $mode "alwaysRender") }}
true
{{- else if eq $mode "failIfMissing" }}
{{- fail "the cluster does not serve monitoring.coreos.com/v1: install the Prometheus operator first, or set serviceMonitor.renderMode to skipIfMissing" }}
{{- end }}
{{- end }}
{{- end }}

{{/* What Pods of hooks have in common with the operator's. */}}
{{- define "berth.hookPod" -}}
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.operator.podSecurityContext }}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.operator.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.operator.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "berth.hookContainer" -}}
image: {{ include "berth.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
resources:
  requests: {cpu: 10m, memory: 64Mi}
  limits: {memory: 256Mi}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- end }}
